# The worker with the vLLM engine, for GPUs. Built from the repository's root: docker build -f docker/worker.Dockerfile .
# vLLM, torch and CUDA are the base image's own; what is added to them is kept from replacing anything.
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${VLLM_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /src
RUN python3 -m venv --system-site-packages --without-pip /opt/gmr && mkdir /models
COPY constraints-vllm.txt pyproject.toml docker/base_pins.py ./
# Versions of the base stand above ours: where they cannot serve us, this build fails.
RUN /opt/gmr/bin/python base_pins.py constraints-vllm.txt > pins.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    touch README.md LICENSE && python3 -m pip --python /opt/gmr/bin/python install --constraint pins.txt '.[torch,otel,buckets]'
COPY LICENSE README.md ./
COPY service service
COPY model_store model_store
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/gmr/bin/python install --no-deps --force-reinstall . \
    && /opt/gmr/bin/python -c "from service.worker.engines.vllm.installation import supported_version; print(supported_version())"

FROM ${VLLM_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG VLLM_IMAGE
LABEL org.opencontainers.image.title="gmr-rerank worker" \
      org.opencontainers.image.description="Scores what gateways ask, with vLLM on GPUs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${VLLM_IMAGE}"
# torch and vLLM ask for a user's name, and compile into its home.
ENV PATH=/opt/gmr/bin:${PATH} HOME=/tmp USER=gmr PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    RERANK_ENGINE=vllm RERANK_MODEL_CACHE=/models
COPY --from=build /opt/gmr /opt/gmr
COPY --from=build --chown=10001:10001 /models /models
COPY --chmod=755 docker/healthy.py /opt/gmr/bin/healthy
WORKDIR /
USER 10001:10001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=10s --start-period=900s CMD ["healthy", "8001", "/health/live"]
ENTRYPOINT ["gmr"]
# A worker never asks for a key: give it a network that only gateways are on.
CMD ["worker", "--host", "0.0.0.0", "--insecure"]
