# Roots in which our Debian package is installed, and what the programs need there. Sourced after
# common.sh and roots.sh.

# deb_of RELEASE: prints the path of the Debian package of these sources.
deb_of() {
  release=$1 packaging/deb/build >&2 || die "the Debian package could not be built"
  ls "$packages/debian-$1"/pgtrickle-relay_*.deb
}

# depends_of DEB: the packages that it depends on; of alternatives, the first.
depends_of() {
  dpkg-deb --field "$1" Depends | tr ',' '\n' | sed 's/ *|.*//; s/ *(.*//; s/^ *//'
}

# installed_root RELEASE [PACKAGE...]: prints the folder of a root with the package and these others.
installed_root() {
  local deb base folder depends
  deb=$(deb_of "$1")
  mapfile -t depends < <(depends_of "$deb")
  base=$(root "$1" run "${depends[@]}" ca-certificates "${@:2}")
  folder=$kept/roots/installed-$1
  if ! cmp -s "$deb" "$folder/installed.deb"; then
    copy_of "$base" "$folder"
    cp "$deb" "$folder/installed.deb"
    inside "$folder" dpkg --install /installed.deb >&2
  fi
  echo "$folder"
}

# libraries_of ROOT PROGRAM...: the paths of all shared libraries that they need.
libraries_of() {
  inside "$1" ldd "${@:2}" | sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p; s/^\t\(\/[^ ]*ld-linux[^ ]*\) (.*/\1/p' | sort -u
}

# packages_of ROOT PROGRAM...: the packages that these libraries are from.
packages_of() {
  local library
  libraries_of "$@" | while read -r library; do
    # dpkg knows a file by the path in its package, which may be in /lib or /usr/lib.
    echo "$library"
    echo "/usr$library"
    echo "${library#/usr}"
    inside "$1" readlink -f "$library"
  done | sort -u | ROOT=$1 sh -c 'xargs dpkg-query --admindir="$ROOT/var/lib/dpkg" --search 2>/dev/null' |
    sed 's/:.*//' | sort -u
}

# copy_ours ROOT FOLDER TREE: what our package has in the folder.
copy_ours() {
  local file
  dpkg-query --admindir="$1/var/lib/dpkg" --listfiles pgtrickle-relay | grep "^/$2/" |
    while read -r file; do
      [ ! -f "$1$file" ] || install -D -m 644 "$1$file" "$3/${file#/usr/}"
    done
}
