#!/usr/bin/env bash
# Builds the files of a release: package.sh [--no-build] [<target>]
#   purse-<version>-<target>.tar.gz  the tree below /: binary, manual pages, completions, systemd units, examples
#   purse_<version>_<arch>.deb       the same for Debian and Ubuntu; [package.metadata.deb] in Cargo.toml lists its files
#   SHA256SUMS                       the checksums of both
# They are in $CARGO_TARGET_DIR/package. The same commit gives the same bytes, if the compiler is the same: times come from
# the commit. Without git, set SOURCE_DATE_EPOCH and DEBEMAIL. `--no-build` packages a binary that was built before;
# PURSE_DEB_FLAGS are extra flags for cargo-deb.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
  echo "package: $1" >&2
  exit 69
}

build=yes
if [ "${1-}" = --no-build ]; then
  build=no
  shift
fi
target=${1-}
[ "$(uname -s)" = Linux ] || fail "packages are built on Linux"

if [ -z "${SOURCE_DATE_EPOCH-}" ]; then
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || fail "this is no git checkout: set SOURCE_DATE_EPOCH"
fi
export SOURCE_DATE_EPOCH
# A Debian package names a maintainer.
if [ -n "${DEBEMAIL-}" ]; then
  maintainer="${DEBFULLNAME:-purse} <$DEBEMAIL>"
else
  maintainer=$(git log -1 --format='%an <%ae>' 2>/dev/null) || fail "this is no git checkout: set DEBEMAIL"
fi

# Prints the version: that of Cargo.toml for its own release. A later commit is newer than the release, and one before it
# is older, also to dpkg.
version() {
  local number revision
  number=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
  revision=$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null) || revision=
  if [ -z "$revision" ] || [ "$(git describe --exact-match --dirty --match "v$number" 2>/dev/null)" = "v$number" ]; then
    echo "$number"
  else
    local sign='~'
    git rev-parse --quiet --verify "refs/tags/v$number" >/dev/null && sign=+
    echo "$number$sign$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).${revision//-/.}"
  fi
}

host=$(rustc -vV | sed -n 's/^host: //p')
release=$CARGO_TARGET_DIR/${target:+$target/}release
if [ "$build" = yes ]; then
  if [ -n "$target" ] && [ "$target" != "$host" ]; then
    # Debian's name of the cross compiler, for the linker; the crates that compile C find it themselves.
    variable=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER
    export "$variable=${!variable:-${target/-unknown/}-gcc}"
    command -v "${!variable}" >/dev/null ||
      fail "${!variable} was not found. Install a cross compiler (Debian, for arm64: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
  fi
  cargo build --release --locked --bin purse ${target:+--target "$target"}
fi
[ -x "$release/purse" ] || fail "$release/purse has not been built"
# A foreign binary does not run here, and the pages of both are the same.
printer=$release/purse
if ! "$printer" --version >/dev/null 2>&1; then
  printer=$CARGO_TARGET_DIR/release/purse
  [ "$build" = no ] || cargo build --release --locked --bin purse
fi

version=$(version)
out=$CARGO_TARGET_DIR/package
# cargo-deb takes them from here.
generated=$release/package
rm -rf "$generated"
mkdir -p "$out" "$generated/man" "$generated/completions"

# Writes the page of a command and of its subcommands.
manual() {
  local page name
  page=$("$printer" man "$@")
  name=purse$(printf -- '-%s' "$@")
  printf '%s\n' "$page" >"$generated/man/${name%-}.1"
  while read -r name; do
    [[ $name = *-help ]] || manual "$@" "$(subcommand "$name" "$@")"
  done < <(sed -n 's/^\(purse.*\)(1)$/\1/p' <<<"${page//\\-/-}")
}

# subcommand <page> <command>...: the page's last command, which may contain a dash.
subcommand() {
  local page=$1 prefix
  shift
  prefix=purse$(printf -- '-%s' "$@")
  echo "${page#"${prefix%-}-"}"
}

manual
# As Debian has them.
gzip --no-name --best "$generated"/man/*
for shell in bash zsh fish; do
  "$printer" completions "$shell" >"$generated/completions/$shell"
done

# The tarball: the tree below /.
name=purse-$version-${target:-$host}
tree=$generated/$name
put() {
  install -D -m "$1" "$2" "$tree/$3"
}
put 755 "$release/purse" usr/bin/purse
put 644 packaging/systemd/purse@.service usr/lib/systemd/system/purse@.service
put 644 packaging/systemd/purse-migrate@.service usr/lib/systemd/system/purse-migrate@.service
put 644 packaging/env/users.env usr/share/doc/purse/examples/users.env
put 644 packaging/env/wallet.env usr/share/doc/purse/examples/wallet.env
for page in LICENSE README.md CHANGELOG.md SECURITY.md; do
  put 644 "$page" "usr/share/doc/purse/$page"
done
put 644 "$generated/completions/bash" usr/share/bash-completion/completions/purse
put 644 "$generated/completions/zsh" usr/share/zsh/vendor-completions/_purse
put 644 "$generated/completions/fish" usr/share/fish/vendor_completions.d/purse.fish
for page in "$generated"/man/*; do
  put 644 "$page" "usr/share/man/man1/${page##*/}"
done
archive=$out/$name.tar.gz
tar --create --directory "$generated" --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
  --numeric-owner --mode=go-w "$name" | gzip --no-name --best >"$archive"

# The binary is stripped by the profile; stripped again it would not be the one in the tarball.
# The flags are several words on purpose.
# shellcheck disable=SC2086
deb=$(cargo deb --no-build --no-strip --locked --quiet --deb-version "$version" --maintainer "$maintainer" \
  ${target:+--target "$target"} ${PURSE_DEB_FLAGS-} --output "$out/")

# Of every architecture of this version that was built.
(cd "$out" && sha256sum purse-"$version"-*.tar.gz purse_"$version"_*.deb >SHA256SUMS)
printf '%s\n' "$archive" "$deb" "$out/SHA256SUMS"
