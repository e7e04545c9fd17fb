# rlgen on a CPU: docker build -t rlgen . && docker run -v "$PWD/outputs:/home/rlgen/outputs" rlgen train agent=dqn
FROM python:3.11-slim

RUN useradd --create-home rlgen
WORKDIR /home/rlgen/source
# The versions that were tested together; torch first and alone, as a build argument may name an index of CPU builds.
COPY constraints.txt pyproject.toml README.md LICENSE ./
ARG TORCH_INDEX
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY rlgen_cli rlgen_cli
COPY configs configs
RUN pip install --no-cache-dir -c constraints.txt '.[report]'

USER rlgen
WORKDIR /home/rlgen
ENTRYPOINT ["rlgen"]
CMD ["--help"]
