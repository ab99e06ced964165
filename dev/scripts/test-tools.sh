#!/bin/sh
# Installs what the tests need beside the servers, where it is missing: Python with pip, Node with npm, curl, Chromium with
# its driver, and on Linux what inspects packages and units.
set -eu
install=$(dirname -- "$0")/install.sh

has() {
  for program; do
    [ ! -x "$program" ] && ! command -v "$program" >/dev/null || return 0
  done
  return 1
}

missing=
has python3 || missing="$missing python3=python"
has node || missing="$missing nodejs=node"
python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip=python"
has npm || missing="$missing npm=node"
has curl || missing="$missing curl"
# shellcheck disable=SC2086  # Several words on purpose.
[ -z "$missing" ] || "$install" $missing

# For the tests of the packages. strip is in binutils, which a C compiler needs too.
if [ "$(uname -s)" = Linux ]; then
  missing=
  has dpkg-deb || missing="$missing dpkg"
  has dpkg-shlibdeps || missing="$missing dpkg-dev"
  has systemd-analyze || missing="$missing systemd"
  has openssl || missing="$missing openssl"
  has nsenter || missing="$missing util-linux"
  # shellcheck disable=SC2086  # Several words on purpose.
  [ -z "$missing" ] || "$install" $missing
fi

missing=
has "${CHROME:-chromium}" google-chrome '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome' ||
  missing="$missing chromium=google-chrome"
has "${CHROMEDRIVER:-chromedriver}" chromium.chromedriver || missing="$missing chromium-driver=chromedriver"
# shellcheck disable=SC2086  # Several words on purpose.
[ -z "$missing" ] || "$install" $missing || {
  echo "test-tools: install Chromium by hand (Ubuntu: snap install chromium, which includes the driver), or set CHROME and CHROMEDRIVER." >&2
  exit 69
}
