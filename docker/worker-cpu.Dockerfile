# The worker with the torch engine, for CPUs: laptops, tests, small models. Built from the repository's root:
#   docker build -f docker/worker-cpu.Dockerfile --build-arg PIP_EXTRA_INDEX_URL=INDEX-OF-PYTORCHS-CPU-BUILDS .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
RUN python3 -m venv --without-pip /opt/gmr && mkdir /models
# What it needs, for a project that is still empty: this layer outlives changes of the source.
COPY constraints.txt pyproject.toml ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    touch README.md LICENSE && python3 -m pip --python /opt/gmr/bin/python install '.[torch,otel,buckets]'
RUN /opt/gmr/bin/python -c "import sys, torch; sys.exit(torch.version.cuda and 'This is the CUDA build of torch: name an index with the CPU build in PIP_EXTRA_INDEX_URL.')"
COPY LICENSE README.md ./
COPY service service
COPY model_store model_store
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/gmr/bin/python install --no-deps --force-reinstall .

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="gmr-rerank worker, CPU" \
      org.opencontainers.image.description="Scores what gateways ask, with torch on a CPU; gmr-tiny is in it" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
ENV PATH=/opt/gmr/bin:${PATH} HOME=/tmp USER=gmr PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RERANK_MODEL_CACHE=/models
COPY --from=build /opt/gmr /opt/gmr
COPY --from=build --chown=10001:10001 /models /models
COPY --chmod=755 docker/healthy.py /opt/gmr/bin/healthy
USER 10001:10001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s CMD ["healthy", "8001", "/health/live"]
ENTRYPOINT ["gmr"]
# A worker never asks for a key: give it a network that only gateways are on.
CMD ["worker", "--host", "0.0.0.0", "--insecure"]
