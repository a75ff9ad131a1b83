# What the builders of packages share. Sourced; the working directory is the repository.

top=$PWD
packages=$top/build/packages
version=$(sed -n 's/^project(pgtrickle_relay VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
host_release=$(sed -n 's/^VERSION_ID="\(.*\)"/\1/p' /etc/os-release)
release=${release:-$host_release}
# The time that is written into packages: that of the newest entry of the changelog.
SOURCE_DATE_EPOCH=$(date -d "$(sed -n 's/^ -- .*>  //p' packaging/debian/changelog | head -n 1)" +%s)
export SOURCE_DATE_EPOCH TZ=UTC
# Where roots and their downloads are kept, beside what else the tests fetch once.
kept=${RELAY_PACKAGE_KEPT:-/var/tmp/pgtrickle-relay-$(id -u)}

die() {
  echo "package: $*" >&2
  exit 1
}

# need TOOL=PACKAGE...: ends unless all tools are here, and names the packages of those that are not.
need() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || [ -x "/usr/sbin/${pair%%=*}" ] || missing+=("$pair")
  done
  [ ${#missing[@]} -eq 0 ] && return
  for pair in "${missing[@]}"; do
    echo "package: ${pair%%=*} is not here: apt-get install ${pair#*=}" >&2
  done
  exit 1
}

# The compiler cache, which a build for a package shares with all others.
use_ccache() {
  ! command -v ccache >/dev/null || CCACHE_DIR=$(ccache --get-config cache_dir)
  export CCACHE_DIR="${CCACHE_DIR:-}"
}

# The files of the repository as they are now (or those of these folders), in a reproducible archive on
# standard output, in the folder NAME.
source_archive() {  # NAME [FOLDER]...
  need git=git
  git ls-files -z --cached --others --exclude-standard -- "${@:2}" |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --create --null --files-from=- --sort=name --owner=0 --group=0 --numeric-owner \
      --mode=u+rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" --transform="s,^,$1/,S" | gzip -9n
}

# What the Debian package is made of, as one number: it is up to date while that is the same.
sources() {
  source_archive sources CMakeLists.txt CMakePresets.json LICENSE README.md cmake docs sql src scripts/build \
    packaging/{debian,etc,monitoring,systemd} | sha256sum | cut -c1-64
}
