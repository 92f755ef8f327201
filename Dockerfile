# The edge server, for any bundle that ONNX Runtime runs:
#   docker build -t splitrun .
#   docker run --rm -p 127.0.0.1:8080:8080 -v ./bundle:/models/bundle:ro splitrun
FROM python:3.12-slim AS build
WORKDIR /build
COPY splitrun splitrun
RUN python -m venv /opt/splitrun && \
    /opt/splitrun/bin/pip install --no-cache-dir "./splitrun[onnxruntime,fast,serve]"

FROM python:3.12-slim
LABEL org.opencontainers.image.title="splitrun" org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/splitrun /opt/splitrun
RUN useradd --system --uid 10001 --no-create-home splitrun && mkdir /models
ENV PATH=/opt/splitrun/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD \
    ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["splitrun", "serve"]
CMD ["/models/bundle", "--host", "0.0.0.0", "--log-format", "json"]
