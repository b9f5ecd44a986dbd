# The service (docs/serving.md). The classifier is mounted at /model, not built in:
#   docker build -t anymodal .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --stop-timeout 40 \
#     -p 127.0.0.1:8000:8000 -v "$PWD/artifacts/classifier:/model:ro" anymodal
FROM python:3.11-slim

# PyTorch without CUDA: a tenth of the size
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /app
RUN pip install --index-url "$TORCH_INDEX" "torch>=2.4"
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install ".[serve]" && useradd --system --no-create-home anymodal

USER anymodal
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# no shell in between: SIGTERM must reach the server
ENTRYPOINT ["anymodal", "serve", "--host", "0.0.0.0", "--port", "8000", "--model", "/model"]
