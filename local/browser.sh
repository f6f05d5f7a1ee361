#!/bin/sh
# Installs Debian's Chromium for the tests of the pages, if it is missing and this user may run apt.
command -v chromium >/dev/null && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0
echo "installing chromium for the tests of the pages (only once) ..."
apt-get update -qq >/dev/null 2>&1
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 \
	|| echo "chromium could not be installed: the tests of the pages need it"
