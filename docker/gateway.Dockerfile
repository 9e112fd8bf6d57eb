# The gateway: no torch, no compiler, no pip. Built from the repository's root: docker build -f docker/gateway.Dockerfile .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
RUN python3 -m venv --without-pip /opt/gmr
# What it needs, for a project that is still empty: this layer outlives changes of the source.
COPY constraints.txt pyproject.toml ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    touch README.md LICENSE && python3 -m pip --python /opt/gmr/bin/python install '.[otel]'
COPY LICENSE README.md ./
COPY service service
COPY model_store model_store
# A gateway serves no model: the checkpoint that ships stays out.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    rm -r model_store/checkpoints && python3 -m pip --python /opt/gmr/bin/python install --no-deps --force-reinstall .

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="gmr-rerank gateway" \
      org.opencontainers.image.description="The HTTP side of gmr-rerank: validates, admits, caches, and asks workers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
ENV PATH=/opt/gmr/bin:${PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/gmr /opt/gmr
COPY --chmod=755 docker/healthy.py /opt/gmr/bin/healthy
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s CMD ["healthy", "8000", "/health/live"]
ENTRYPOINT ["gmr"]
# It refuses to start without API keys (RERANK_API_KEYS_FILE), unless --insecure is added.
CMD ["gateway", "--host", "0.0.0.0"]
