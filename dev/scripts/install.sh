#!/bin/sh
# Installs packages of the system, with apt or Homebrew: install.sh <package>...
# A package that Homebrew knows under another name is written <apt name>=<Homebrew name>.
set -eu
for package; do
  apt="${apt-} ${package%%=*}" brew="${brew-} ${package#*=}"
done

fail() {
  echo "install: $1" >&2
  exit 69
}

# Prints the services that start with the machine; nothing where systemd does not run, as in most containers.
enabled_units() {
  [ -d /run/systemd/system ] || return 0
  systemctl list-unit-files --no-legend --no-pager --state=enabled --type=service,socket,timer | awk '{ print $1 }' | sort
}

if command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    as_root=
  elif command -v sudo >/dev/null; then
    as_root=sudo
  else
    fail "packages are missing. As root, run: apt-get update && apt-get install -y --no-install-recommends$apt"
  fi
  echo "Installing$apt with apt (once; about a minute)"
  before=$(enabled_units)
  # Several words on purpose, here and below.
  # shellcheck disable=SC2086
  {
    $as_root apt-get update || echo "install: apt-get update failed; trying with the package lists that are here" >&2
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $apt ||
      fail "apt-get could not install$apt; its message is above"
    # Debian enables the services of a package. purse starts servers of its own, so only those that were enabled
    # before stay enabled.
    added=$(enabled_units | grep -vxF -e "$before" | tr '\n' ' ') || true
    if [ -n "$added" ] && $as_root systemctl disable --now --quiet $added; then
      echo "Disabled the services that these packages enabled: ${added% }"
      echo "purse does not need them. To use them yourself, run: sudo systemctl enable --now ${added% }"
    fi
  }
elif command -v brew >/dev/null; then
  echo "Installing$brew with Homebrew (once; a few minutes)"
  # shellcheck disable=SC2086
  brew install $brew || fail "Homebrew could not install$brew; its message is above"
else
  fail "packages are missing, and neither apt-get nor brew is here. Install them with this system's package manager:$apt"
fi
