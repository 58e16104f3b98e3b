#!/bin/bash
# Installs with apt what building and testing need, if anything is missing. Silent, and quick, when
# all is there. Does nothing with INSTALL_DEPS=no.
set -eu -o pipefail
[ "${INSTALL_DEPS:-yes}" != no ] || exit 0

PG_CONFIG=${PG_CONFIG:-pg_config}
CC=(${ENGINE_CC:-gcc})			# it may be two words: ccache gcc
missing=()						# in words
packages=()						# what brings it

need()							# need WORD PACKAGE...
{
	missing+=("$1")
	shift
	packages+=("$@")
}
have() { command -v "$1" >/dev/null 2>&1; }
header()						# header NAME [FLAG...]
{
	printf '#include <stdio.h>\n#include <%s>\n' "$1" | "${CC[@]}" "${@:2}" \
		-fsyntax-only -x c - 2>/dev/null
}

have make || need make make
have "${CC[0]}" || need "a C compiler" gcc libc6-dev
header png.h || need libpng libpng-dev
header libdeflate.h || need libdeflate libdeflate-dev
header jpeglib.h || need libjpeg-turbo libjpeg-dev
header webp/demux.h || need libwebp libwebp-dev
header cairo/cairo.h || need cairo libcairo2-dev
header fontconfig/fontconfig.h || need fontconfig libfontconfig-dev
header ft2build.h ${FREETYPE_CFLAGS:--I/usr/include/freetype2} || need FreeType libfreetype-dev
[ -f /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf ] || fc-list 2>/dev/null \
	| grep -q 'Noto Color Emoji' || need "the font Noto Color Emoji" fonts-noto-color-emoji
header jansson.h || need jansson libjansson-dev
header openssl/sha.h || need OpenSSL libssl-dev
have clang-format || have clang-format-14 || need clang-format clang-format
have setpriv || need setpriv util-linux
have prove || need prove perl
perl -MIPC::Run -e1 2>/dev/null || need IPC::Run libipc-run-perl
have pg_prove || need pg_prove libtap-parser-sourcehandler-pgtap-perl

# What demo/pairs.sh makes the pairs of $TASK with: the distribution's own Python.
case ${TASK:-emoji} in
	icons | maps) /usr/bin/python3 -c 'import PIL, numpy' 2>/dev/null \
		|| need "Pillow and numpy" python3-pil python3-numpy ;;&
	icons) have rsvg-convert || need rsvg-convert librsvg2-bin
		[ -d /usr/share/icons/Papirus ] || need "the icons of Papirus" papirus-icon-theme ;;
	maps) /usr/bin/python3 -m pip --version >/dev/null 2>&1 || need pip python3-pip ;;
esac

# The server is the one of PG_CONFIG if there is one, else the distribution's. pgTAP is asked of the
# distribution's servers only.
server=
if ! have "$PG_CONFIG" || [ ! -f "$("$PG_CONFIG" --includedir-server)/postgres.h" ] \
	|| [ ! -x "$("$PG_CONFIG" --bindir)/initdb" ]; then
	server=yes
elif [[ $("$PG_CONFIG" --bindir) == /usr/lib/postgresql/* ]] \
	&& [ ! -f "$("$PG_CONFIG" --sharedir)/extension/pgtap.control" ]; then
	server=yes
fi
[ -z "$server" ] || missing+=("PostgreSQL's server, headers or pgTAP")
[ ${#missing[@]} -gt 0 ] || exit 0

printf -v words '%s, ' "${missing[@]}"
words=${words%, }
if ! have apt-get; then
	echo "missing: $words.  Install them with your package manager; this script knows apt only." >&2
	exit 1
fi
sudo=()
if [ "$(id -u)" != 0 ]; then
	if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		sudo=(sudo)
	else
		echo "missing: $words.  Installing them needs root:" \
			"run test/install-deps.sh once as root, or with sudo." >&2
		exit 1
	fi
fi
root() { "${sudo[@]}" "$@"; }
apt()
{
	local log

	log=$(mktemp)
	if ! root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 \
		"$@" </dev/null >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

echo "missing: $words; installing with apt"
apt update || echo "apt-get update failed; going on with the lists at hand" >&2

if [ -n "$server" ]; then
	if have "$PG_CONFIG"; then
		version=$("$PG_CONFIG" --version | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
	else
		version=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' \
			| head -1)
	fi
	[ -n "$version" ] || { echo "this distribution has no package named postgresql" >&2; exit 1; }
	packages+=("postgresql-$version" "postgresql-server-dev-$version" "postgresql-$version-pgtap")

	# Installing Debian's server package creates a cluster and starts it. Only the programs are
	# wanted, so that is turned off while it is being installed.
	apt install --no-install-recommends postgresql-common
	conf=/etc/postgresql-common/createcluster.d
	[ -d $conf ] || { root mkdir $conf; made_conf=yes; }
	trap 'root rm -f $conf/bicycle.conf; [ -z "${made_conf:-}" ] || root rmdir $conf' EXIT
	echo "create_main_cluster = false" | root tee $conf/bicycle.conf >/dev/null
fi
apt install --no-install-recommends "${packages[@]}"
echo "installed: ${packages[*]}"
