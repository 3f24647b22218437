# On a CPU:        docker build -t lungseg .
# On an NVIDIA GPU: docker build --build-arg EXTRA=gpu -t lungseg .   (or cuda12)
#
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" lungseg \
#     predict scan.nii.gz lungs.nii.gz
#
# With a GPU, add --gpus all. Nothing is downloaded when it runs.
FROM python:3.12-slim

ARG EXTRA=""
COPY . /src
RUN pip install --no-cache-dir "/src${EXTRA:+[$EXTRA]}" && rm -r /src

# Any user may write here: prepared data and compiled programs.
ENV XDG_CACHE_HOME=/cache
RUN mkdir --mode=1777 /cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["lungseg"]
CMD ["--help"]
