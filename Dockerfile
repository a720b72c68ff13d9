# The CPU image by default; docker-compose.gpu.yml builds the same with a CUDA build of torch.
# Stages: `requirements` lists what the project needs, `needs` installs it, `package` builds the project itself, and the last
# one is the image. A change of the source, or of pyproject.toml beside the requirements, runs `package` alone, without a
# download.
FROM python:3.11.16-slim-bookworm AS requirements
ARG EXTRAS=service,s3,dashboard,telemetry
WORKDIR /requirements
COPY pyproject.toml ./
RUN python - <<'END' > requirements.txt
import os, tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]


def lines(extras):
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            own = line.removeprefix(project["name"] + "[")
            yield from [line] if own == line else lines(own.rstrip("]").split(","))


print(*sorted({*project["dependencies"], *lines(os.environ["EXTRAS"].split(","))}), sep="\n")
END

FROM python:3.11.16-slim-bookworm AS needs
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Builds the wheel in `package`; it stays out of the image.
RUN pip install "hatchling>=1.27,<2" && python -m venv /opt/illume
ENV PATH=/opt/illume/bin:$PATH
# torch comes first, from its own index. It must be a version that pyproject allows, or the second install would replace
# it with one from PyPI.
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.6,<=2.13.0"
WORKDIR /needs
COPY constraints.txt ./
COPY --from=requirements /requirements/requirements.txt ./
RUN pip install -c constraints.txt -r requirements.txt

FROM needs AS package
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY illume_loop illume_loop
COPY workers workers
COPY db db
COPY migrations migrations
COPY configs configs
RUN /usr/local/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip install --no-deps --no-index --prefix=/installed /wheels/*.whl

FROM python:3.11.16-slim-bookworm
# New volumes take over these owners.
RUN groupadd --gid 10001 illume \
    && useradd --uid 10001 --gid illume --no-create-home --home-dir /tmp --shell /usr/sbin/nologin illume \
    && install --directory --owner illume --group illume --mode 0750 /data /cache
COPY --from=needs /opt/illume /opt/illume
COPY --from=package /installed/ /opt/illume/
COPY configs /configs
# The root file system is read-only in docker-compose.yml. Models of the Hugging Face hub stay in the volume /cache; what
# else libraries want to keep goes to /tmp.
ENV PATH=/opt/illume/bin:$PATH \
    HF_HOME=/cache/huggingface \
    HF_DATASETS_CACHE=/tmp/datasets \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TOKENIZERS_PARALLELISM=false
USER 10001:10001
WORKDIR /data
CMD ["illume-loop", "--help"]
