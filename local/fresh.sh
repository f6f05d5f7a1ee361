#!/bin/sh
# Runs the commands of the README on a fresh Debian 13, as an ordinary user: `make demo` until it answers, `make test`.
# Usage: fresh.sh [COMMAND]: COMMAND replaces `make test`. It tests the last commit, and needs root and debootstrap.
# The root of Debian stays in FRESH_ROOT (default /var/tmp/lately-fresh); remove the folder to begin anew.
set -eu

fail() { echo "fresh: $1" >&2; exit "${2:-1}"; }

source=$(cd "$(dirname "$0")/.." && pwd -P)
command=${1:-make test}
folder=${FRESH_ROOT:-/var/tmp/lately-fresh}
root=$folder/debian-13
home=/home/lately
packages="ca-certificates chromium curl git make maven openjdk-21-jdk-headless procps python3 python3-venv"

if [ "${2:-}" != inside ]; then
	[ "$(id -u)" = 0 ] || fail "it needs root, for debootstrap and chroot: run it as root" 2
	for tool in debootstrap unshare git; do
		command -v $tool >/dev/null || fail "no $tool on the PATH: apt-get install debootstrap util-linux git" 2
	done
	mkdir -p "$folder"
	# Mounts and processes end with this process, also after kill -9.
	exec unshare --mount --pid --fork --kill-child sh "$0" "$command" inside
fi

if [ ! -e "$root" ]; then
	mirror=$(apt-get update --print-uris | sed -n "s|^'\(.*\)/dists/[^/]*/InRelease'.*|\1|p" | grep -v security | head -n 1)
	rm -rf "$root.new"
	echo "fresh: building a Debian 13 in $root ..."
	debootstrap --variant=minbase trixie "$root.new" "${mirror:-https://deb.debian.org/debian}" >"$folder/debootstrap.log" ||
		fail "debootstrap failed: see $folder/debootstrap.log"
	mv "$root.new" "$root"
fi

# What the network needs: name servers, how apt downloads, certificate authorities, mirrors of pip and Maven.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
grep -ls '^ *Acquire::' /etc/apt/apt.conf /etc/apt/apt.conf.d/* | while read -r file; do
	cp "$file" "$root/etc/apt/apt.conf.d/"
done
cp /etc/pip.conf "$root/etc/" 2>/dev/null || true
mkdir -p "$root/usr/local/share/ca-certificates" "$root$home/.m2"
cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
cp ~/.m2/settings.xml "$root$home/.m2/" 2>/dev/null || true

mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"

in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
if [ ! -e "$root/installed" ]; then
	echo "fresh: installing $packages ..."
	in_root sh -c "apt-get -qq update && apt-get -qq install --no-install-recommends $packages && update-ca-certificates" \
		>"$folder/apt.log" 2>&1 || fail "apt failed: see $folder/apt.log"
	touch "$root/installed"
fi
in_root id lately >/dev/null 2>&1 || in_root useradd --home-dir $home --shell /bin/sh lately
rm -rf "$root$home/lately"
git -c safe.directory="$source/.git" clone -q "$source" "$root$home/lately"
in_root chown -R lately: $home

as_user() {
	chroot --userspec=lately:lately "$root" env -i HOME=$home USER=lately LANG=C.UTF-8 PATH=/usr/bin:/bin \
		${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
		${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} sh -c "cd $home/lately && $1"
}
versions="Debian $(cat "$root/etc/debian_version"), $(as_user 'python3 --version'), $(as_user 'java -version 2>&1 | head -n 1')"
echo "fresh: $versions, commit $(git -c safe.directory="$source" -C "$source" rev-parse --short HEAD)"

# The first command of the README, until it shows a purchase of its shop. setsid: a group of its own, for Ctrl-C.
began=$(date +%s)
demo=$folder/demo.log
as_user 'exec setsid make demo' >"$demo" 2>&1 &
make=$!
until grep -q ' buys ' "$demo"; do
	kill -0 $make 2>/dev/null || fail "make demo ended: see $demo"
	[ $(($(date +%s) - began)) -lt 1200 ] || fail "make demo did not show an order within 20 minutes: see $demo"
	sleep 1
done
address=$(sed -n 's|.*home page of a user *\(http.*\)/users/.*|\1|p' "$demo")
user=$(sed -n 's/^ *\(user-[0-9]*\) buys .*/\1/p' "$demo" | head -n 1)
until as_user "curl -sf $address/v1/users/$user/purchases" | grep -q order_id; do
	[ $(($(date +%s) - began)) -lt 1200 ] || fail "no purchase of $user within 20 minutes: see $demo"
	sleep 1
done
seconds=$(($(date +%s) - began))
in_root pkill -INT -u lately -f local.demo || true
wait $make || fail "make demo did not end with 0 after Ctrl-C: see $demo"
! grep -E 'ERROR|Traceback' "$demo" || fail "make demo printed errors: see $demo"
echo "fresh: make demo answered after $seconds s, downloads included"

as_user "$command" || fail "$command failed on $versions"
echo "fresh: $command passed on $versions"
