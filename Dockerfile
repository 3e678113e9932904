# The service with its embedded defaults; compose.yaml runs it beside a PostgreSQL of its own.

FROM python:3.13-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/ingestd
COPY requirements/run.txt requirements/
RUN /opt/ingestd/bin/pip install --no-cache-dir --require-hashes --requirement requirements/run.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY migrations migrations
COPY src src
RUN /opt/ingestd/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim-bookworm
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/ingestd ingestd
COPY --from=build /opt/ingestd /opt/ingestd
ENV PATH=/opt/ingestd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INGESTD_DATA_DIR=/var/lib/ingestd/data \
    INGESTD_HTTP__HOST=0.0.0.0 \
    INGESTD_SFTP__HOST=0.0.0.0 \
    INGESTD_METRICS__HOST=0.0.0.0
USER 10001
WORKDIR /var/lib/ingestd
VOLUME /var/lib/ingestd
EXPOSE 8080 2222 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9464/readyz', timeout=4)"]
ENTRYPOINT ["ingestd"]
CMD ["serve"]
