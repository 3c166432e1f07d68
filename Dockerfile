# cmbprep as a container:
#   docker build -t cmbprep .
#   docker run --rm -v BIDS:/data:ro -v OUT:/out cmbprep /data /out participant
# Built from Debian's own Python and the releases pinned in constraints.txt. A build behind a
# package mirror passes --build-arg PIP_INDEX_URL=...; running needs no network.

FROM debian:bookworm-slim AS build

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/cmbprep

WORKDIR /src
# The dependencies change seldom and are nearly all of the image: a layer of their own.
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && /opt/cmbprep/bin/pip install --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY cmbprep ./cmbprep
RUN /opt/cmbprep/bin/pip install --no-deps . \
    && /opt/cmbprep/bin/pip check \
    && /opt/cmbprep/bin/pip uninstall --yes --quiet pip setuptools


FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="cmbprep" \
      org.opencontainers.image.description="Cerebral microbleeds from BIDS datasets: found, placed in anatomical zones, reported. Research use, not a diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0"

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/cmbprep /opt/cmbprep

# The container is run as whoever owns the output folder (--user), so home is open to every user
# id, as is /tmp. LOGNAME and USER spare libraries a look-up of an id that has no name here.
ENV PATH=/opt/cmbprep/bin:$PATH \
    HOME=/home/cmbprep \
    LOGNAME=cmbprep \
    USER=cmbprep \
    LANG=C.UTF-8 \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/home/cmbprep/.config/matplotlib \
    NIPYPE_NO_ET=1 \
    NO_ET=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TEMPLATEFLOW_AUTOUPDATE=off \
    TEMPLATEFLOW_HOME=/home/cmbprep/templateflow
# Made now rather than at every start: matplotlib's font list, TemplateFlow's empty skeleton.
RUN useradd --uid 1000 --create-home --home-dir /home/cmbprep --shell /usr/sbin/nologin cmbprep \
    && python -c 'import matplotlib.font_manager, templateflow' 2>/dev/null \
    && chown -R cmbprep:cmbprep /home/cmbprep \
    && chmod -R a+rwX /home/cmbprep

USER cmbprep
WORKDIR /home/cmbprep
ENTRYPOINT ["cmbprep"]
CMD ["--help"]
