# The CPU image by default; docker-compose.gpu.yml builds the same with a CUDA build of torch.
FROM python:3.11.14-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=service,s3,dashboard,telemetry
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/illume
ENV PATH=/opt/illume/bin:$PATH
# First and alone, so that a change of the code does not fetch torch again. It must be a version that pyproject allows,
# or the second install would replace it with one from PyPI.
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.6,<=2.13.0"
WORKDIR /src
COPY pyproject.toml README.md constraints.txt ./
COPY illume_loop illume_loop
COPY workers workers
COPY db db
COPY migrations migrations
RUN pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/illume /opt/illume
COPY configs /configs
# New volumes take over these owners.
RUN groupadd --gid 10001 illume \
    && useradd --uid 10001 --gid illume --no-create-home --home-dir /tmp --shell /usr/sbin/nologin illume \
    && install --directory --owner illume --group illume --mode 0750 /data /cache
# The root file system is read-only in docker-compose.yml: what libraries want to keep goes to /tmp.
ENV PATH=/opt/illume/bin:$PATH \
    HF_HOME=/tmp/huggingface \
    HF_HUB_OFFLINE=1 \
    HF_DATASETS_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TOKENIZERS_PARALLELISM=false
USER 10001:10001
WORKDIR /data
CMD ["illume-loop", "--help"]
