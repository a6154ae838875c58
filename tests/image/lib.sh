# shellcheck shell=sh
# Builds the image without a registry. Sourced by run and tree, in the project's directory.
# A stand-in for the base image is made of this distribution's packages, and Dockerfile.enclave is
# built on it as on the official one.

program=tests/image/$(basename "$0")

cannot() {
    echo "$program: cannot run here: $*" >&2
    exit 77
}

say() { echo "== $(($(date +%s) - began)) s: $*"; }

began=$(date +%s)

[ "$(id -u)" -eq 0 ] || cannot "needs root, for buildah without user namespaces and for chroot"
for tool in apt-get dpkg-deb chroot; do
    command -v "$tool" >/dev/null || cannot "needs Debian's $tool"
done
if ! command -v buildah >/dev/null; then
    { apt-get -q update && apt-get -q -y install --no-install-recommends buildah; } >&2 ||
        cannot "buildah is missing and cannot be installed"
fi

scripts/pythons >/dev/null || cannot "needs Python 3.11 or newer"
scripts/venv .venvs/test requirements/dev.txt
python=$PWD/.venvs/test/bin/python

work=$(mktemp -d /var/tmp/enclave-image.XXXXXX)
built=
finish() {
    for name in $built; do
        buildah_ umount "test-$name" >/dev/null 2>&1 || true
    done
    rm -rf "$work"
}

# With a storage of its own, so that it neither changes nor sees other images of the machine.
buildah_() {
    BUILDAH_ISOLATION=chroot buildah --root "$work/storage" --runroot "$work/runroot" \
        --storage-driver vfs "$@"
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The stand-in has the Python series that Dockerfile.enclave pins: the wheels are for that one.
series=$(sed -n 's/^ARG PYTHON_IMAGE=.*python:\(3\.[0-9]*\)\..*/\1/p' Dockerfile.enclave)

stand_in() {
    say "making a stand-in for the base image, with Python $series"
    mkdir -p "$work/debs" "$work/base/wheels" "$work/base/etc"
    # Merged /usr, as in Debian's own images.
    mkdir -p "$work/base/usr/bin" "$work/base/usr/sbin" "$work/base/usr/lib" "$work/base/usr/lib64"
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$work/base/$name"; done
    (
        cd "$work/debs"
        download || { apt-get -q update >&2 && download; }
    ) || cannot "Debian's packages of Python $series cannot be had"
    for package in "$work"/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work/base" --keep-directory-symlink
    done
    ln -sf "python$series" "$work/base/usr/bin/python3"
    "$python" -m pip --quiet --disable-pip-version-check download --no-deps --require-hashes \
        --only-binary :all: --python-version "$series" --dest "$work/base/wheels" \
        --requirement requirements/enclave.txt ||
        cannot "the packages of requirements/enclave.txt cannot be had"
    printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$work/base/etc/pip.conf"
    base=$(buildah_ from scratch)
    buildah_ add --quiet "$base" "$work/base" / >/dev/null
    buildah_ commit --quiet "$base" localhost/stand-in:latest >/dev/null
    digest=$(buildah_ images --format '{{.Digest}}' localhost/stand-in)
    buildah_ rm "$base" >/dev/null
}

download() {
    # shellcheck disable=SC2046
    apt-get -q download $(packages) >/dev/null 2>&1
}

packages() {
    echo "python$series-minimal libpython$series-minimal libpython$series-stdlib python$series"
    echo "python3-pip python3-distutils python3-lib2to3 python3-setuptools python3-pkg-resources"
    echo "libc6 libcrypt1 libgcc-s1 libssl3 libffi8 libexpat1 zlib1g libbz2-1.0 liblzma5 libuuid1"
}

# build NAME FOLDER [DIGEST]: builds in FOLDER, from copies of the working tree's files, and puts the
# image's file tree into $work/NAME.
build() {
    mkdir -p "$2"
    git ls-files -z Dockerfile.enclave .dockerignore requirements foobar_enclave foobar_shared \
        scripts | xargs -0 cp --parents -t "$2"
    (
        cd "$2"
        buildah_ build --quiet --no-cache --file Dockerfile.enclave --tag "localhost/$1" \
            --ignorefile .dockerignore --pull-never --build-arg PYTHON_IMAGE=localhost/stand-in \
            ${3+--build-arg "PYTHON_DIGEST=$3"} . >/dev/null
    )
    built="$built $1"
    buildah_ from --pull-never --name "test-$1" "localhost/$1" >/dev/null
    cp -a "$(buildah_ mount "test-$1")" "$work/$1"
    buildah_ umount "test-$1" >/dev/null
}

# configuration NAME: the image's configuration (Entrypoint, Env), as JSON.
configuration() {
    buildah_ inspect --type image "localhost/$1" | "$python" -c '
import json, sys
json.dump(json.load(sys.stdin)["OCIv1"]["config"], sys.stdout, indent=2)'
}
