# Training, mining and publishing (gmr train, gmr mine, gmr publish), with PyTorch for GPUs. Built from the repository's root:
#   docker build -f docker/trainer.Dockerfile .
# EXTRAS=train leaves out Ray, TRL for ERank, and TensorBoard. PyPI's torch brings CUDA with it; PIP_EXTRA_INDEX_URL may name an index
# with another build.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL=""
ARG EXTRAS=train,train-erank,tensorboard,cluster
ENV PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
RUN python3 -m venv --without-pip /opt/gmr && mkdir /models
# What it needs, for a project that is still empty: this layer outlives changes of the source.
COPY constraints.txt pyproject.toml ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    touch README.md LICENSE && python3 -m pip --python /opt/gmr/bin/python install ".[buckets,${EXTRAS}]"
# A torch for CPUs beside a torchvision for CUDA, which is what an index without PyTorch's CPU builds has.
COPY docker/vllm-cpu/sitecustomize.py /tmp/torchvision_operators.py
RUN packages="$(/opt/gmr/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && if ! /opt/gmr/bin/python -c 'import torchvision' 2>/dev/null; then \
         cp /tmp/torchvision_operators.py "$packages" && echo import torchvision_operators > "$packages/torchvision_operators.pth"; \
       fi && /opt/gmr/bin/python -c 'import torchvision, transformers'
COPY LICENSE README.md ./
COPY service service
COPY model_store model_store
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/gmr/bin/python install --no-deps --force-reinstall .

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="gmr-rerank trainer" \
      org.opencontainers.image.description="Trains, mines and publishes rerankers; also as torchrun -m model_store.training" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
ENV PATH=/opt/gmr/bin:${PATH} HOME=/tmp USER=gmr PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RERANK_MODEL_CACHE=/models
COPY --from=build /opt/gmr /opt/gmr
COPY --from=build --chown=10001:10001 /models /models
# Data, runs and checkpoints are volumes; relative paths are below this one.
WORKDIR /models
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["gmr"]
CMD ["--help"]
