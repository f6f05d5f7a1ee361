#!/bin/sh
# Unpacks the MySQL server of Debian unstable into a folder: FOLDER/mysqld, FOLDER/mysql and FOLDER/mysqldump.
# Usage: mysql_server.sh FOLDER [SUITE]. It needs apt, and neither root nor a Debian of that suite: the packages bring
# their own C library. It uses the mirror of this machine's apt configuration and leaves the state of apt unchanged.
# Exit codes: 0 complete, 2 this machine has no suitable apt, 1 anything else failed.
set -eu

fail() { echo "$1" >&2; exit "${2:-1}"; }
advice="install MySQL 8.4 or newer, with mysqld on the PATH"

parent=$(mkdir -p "$(dirname "$1")" && cd "$(dirname "$1")" && pwd -P)
target=$parent/$(basename "$1")
suite=${2:-sid}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# mysqld is the last file that is written: it exists only in a complete folder.
[ ! -e "$target/mysqld" ] || exit 0
for tool in apt-get dpkg-deb flock; do
	command -v "$tool" >/dev/null || fail "MySQL cannot be downloaded without $tool: $advice" 2
done
[ -e "$keyring" ] || fail "MySQL cannot be downloaded without $keyring (package debian-archive-keyring): $advice" 2

# One process at a time. The kernel releases the lock when the process ends, also after kill -9.
exec 9>"$target.lock"
flock 9
[ ! -e "$target/mysqld" ] || exit 0
rm -rf "$target" "$target".new.*

# The addresses that `apt-get update` would read, also on a machine where it was never run.
mirror=$(apt-get update --print-uris | sed -n "s|^'\(.*\)/dists/[^/]*/InRelease'.*|\1|p" | grep -v security | head -n 1)
[ -n "$mirror" ] || fail "apt has no Debian mirror in its sources: $advice" 2

new=$(mktemp -d "$target.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$new/apt/lists/partial" "$new/apt/archives/partial" "$new/packages" "$new/files/root"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$new/apt/sources.list"
# This file is read after those of /etc/apt: their proxies stay, everything else is private.
cat >"$new/apt/apt.conf" <<END
Dir::State "$new/apt";
Dir::State::Lists "$new/apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$new/apt";
Dir::Cache::archives "$new/apt/archives";
Dir::Log "$new/apt";
Dir::Etc::SourceList "$new/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User "$(id -un)";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::Languages "none";
Acquire::Retries "3";
END
apt() { apt-get -qq -c "$new/apt/apt.conf" "$@"; }
apt update

# A machine without packages: the simulation lists all that MySQL needs. Maintainer scripts do not run here.
packages=$(apt --simulate --no-install-recommends install mysql-server-core mysql-client-core |
	awk '$1 == "Inst" && $2 !~ /^(adduser|debconf|dpkg|init-system|libperl|passwd|perl|tar)/ { print $2 }')
[ -n "$packages" ] || fail "$mirror has no mysql-server-core in $suite: $advice"
(cd "$new/packages" && apt download $packages)
for package in "$new"/packages/*.deb; do
	dpkg-deb -x "$package" "$new/files/root"
done
cd "$new/files/root/usr"
rm -rf share/doc share/locale share/man
find bin -type f ! -name mysql ! -name mysqldump -delete

# The C library of unstable is newer than the one of this machine: its own loader starts the programs.
cd "$new/files"
loader=$(find root/usr/lib -name 'ld-linux*.so*' | head -n 1)
library=$(find root/usr/lib -name libc.so.6 | head -n 1)
[ -n "$loader" ] && [ -n "$library" ] || fail "the packages of $suite contain no C library"
plugins='--plugin-dir=$here/root/usr/lib/mysql/plugin/'
charsets='--character-sets-dir=$here/root/usr/share/mysql/charsets'
server="--basedir=\$here/root/usr --lc-messages-dir=\$here/root/usr/share/mysql --secure-file-priv=NULL"

# write_program NAME PATH OPTION...: a program that works in any folder, spaces included.
write_program() {
	name=$1 path=$2
	shift 2
	{
		echo '#!/bin/sh'
		echo 'here=$(cd "$(dirname "$0")" && pwd -P)'
		echo '[ "${1:-}" != --no-defaults ] || shift'
		printf 'exec "$here/%s" --library-path "$here/%s" "$here/%s" --no-defaults' \
			"$loader" "$(dirname "$library")" "$path"
		for option; do printf ' "%s"' "$option"; done
		echo ' "$@"'
	} >"$name"
	chmod 755 "$name"
}
write_program mysql root/usr/bin/mysql "$plugins" "$charsets"
write_program mysqldump root/usr/bin/mysqldump "$plugins" "$charsets"
write_program mysqld root/usr/sbin/mysqld $server "$plugins" "$charsets"
./mysqld --version
mv "$new/files" "$target"
