# Roots of Debian releases, in which packages are built and tried. Sourced after common.sh.

suite_of() {
  case "$1" in
    12) echo bookworm ;;
    13) echo trixie ;;
    *) die "there is no Debian $1 here: 12 or 13" ;;
  esac
}

# root RELEASE NAME [PACKAGE...]: prints the folder of a root that has these packages, and makes it if
# there is none yet.
root() {
  local suite name=$2 folder merged=()
  suite=$(suite_of "$1")
  shift 2
  need mmdebstrap=mmdebstrap
  # As the installer does it; from Debian 13 on a package brings these links.
  [ "$suite" != bookworm ] || merged=(--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr)
  folder=$kept/roots/$suite-$name-$(printf '%s\n' "$@" | sha256sum | cut -c1-12)
  mkdir -p "$kept/roots"
  (
    flock 9
    [ -e "$folder.complete" ] && exit 0
    echo "package: making a root of $suite with ${*:-nothing else}" >&2
    rm -rf "$folder"
    mmdebstrap --quiet --variant=apt "${merged[@]}" --include="$(IFS=,; echo "$*")" \
      --aptopt='Acquire::Retries "3"' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$folder" >&2 || exit 1
    touch "$folder.complete"
  ) 9>"$folder.lock" || die "the root of $suite could not be made"
  echo "$folder"
}

# copy_of FOLDER ROOT: a root that may be changed and thrown away.
copy_of() {
  rm -rf "$2"
  mkdir -p "$(dirname "$2")"
  cp -a --reflink=auto "$1" "$2"
}

# inside ROOT [--read-only] [--user UID:GID] [--env NAME=VALUE]... [--bind FROM TO]... COMMAND...: runs a
# command in a root, with /proc, /dev, the names of this machine, and these folders. With --read-only it
# can write into /tmp only. The mounts end with the command. become=exec: the shell becomes the command,
# which then gets its signals.
inside() {
  local root=$1 binds=() mode=rw user=0:0 variables=()
  shift
  while true; do
    case "$1" in
      --bind) binds+=("$2" "$3"); shift 3 ;;
      --env) variables+=("$2"); shift 2 ;;
      --read-only) mode=ro; shift ;;
      --user) user=$2; shift 2 ;;
      *) break ;;
    esac
  done
  ROOT=$root MODE=$mode ACCOUNT=$user VARIABLES=$(printf '%s\n' "${variables[@]}") BINDS=$(printf '%s\n' "${binds[@]}") \
    ${become:-} unshare --mount --propagation=private bash -c '
    set -e
    cp --remove-destination "$(readlink -f /etc/resolv.conf)" "$ROOT/etc/resolv.conf"
    cp /etc/hosts "$ROOT/etc/hosts"
    while read -r from && read -r to; do mkdir -p "$ROOT$to"; done <<<"$BINDS"
    mount --bind "$ROOT" "$ROOT"
    [ "$MODE" = rw ] || mount -o remount,bind,ro "$ROOT"
    mount --types proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    [ "$MODE" = rw ] || mount --types tmpfs tmpfs "$ROOT/tmp"
    while read -r from && read -r to; do mount --bind "$from" "$ROOT$to"; done <<<"$BINDS"
    cd "$ROOT"
    mapfile -t variables < <(sed "/^$/d" <<<"$VARIABLES")
    exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LC_ALL=C.UTF-8 TZ=UTC \
      DEBIAN_FRONTEND=noninteractive "${variables[@]}" \
      /usr/sbin/chroot --userspec="+${ACCOUNT%:*}:+${ACCOUNT#*:}" --groups="" "$ROOT" "$@"' inside "$@"
}
