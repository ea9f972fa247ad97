# shellcheck shell=bash
# Common ground of the drivers (test/run, test/demo/run, test/bench/run, test/chaos/run): sourced, not run. Bash.
#
# A driver calls `prepare "$@"` first. Outside, prepare installs what is missing, makes a temporary directory, copies the
# tree into it and runs the same driver there as an unprivileged user; when that ends, or a signal comes, it
# removes the directory and whatever process still works in it. Inside, prepare returns, and the driver goes on
# in its private copy, which it may change as it likes. Why a copy: PostgreSQL does not run as root, its user often
# cannot read the clone (a home directory), and objects that were built with other flags or for another PostgreSQL
# must not be mixed with these.
#
# Extensions are installed into a private copy of PostgreSQL, not into the system's directories. PostgreSQL finds its
# files relative to its executables, so copies of those beside links to everything else make an installation that belongs
# to nobody but us. That needs no root, works on 15, which has no extension_control_path, and lets runs go on
# side by side.
#
# Inside, these are set: WORK (the directory; the tree is $WORK/tree), PG_CONFIG (the private PostgreSQL),
# PGHOST, PGPORT, PGUSER, PGDATABASE (after server_start), JOBS.

set -u

prepare_fail()
{
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# ---------------------------------------------------------------------------------------------------
# What is needed, and how to get it

# True if $1 is a pg_config whose PostgreSQL can build and test an extension.
prepare_usable_postgres()
{
	local bin pgxs headers

	bin=$("$1" --bindir 2>/dev/null) && pgxs=$("$1" --pgxs 2>/dev/null) &&
		headers=$("$1" --includedir-server 2>/dev/null) || return 1
	# Debian's client package has pgxs.mk, but not the headers
	[ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -f "$pgxs" ] && [ -f "$headers/postgres.h" ]
}

# Sets PG_CONFIG to the one given, else to the newest complete installation of a supported version. False if none.
prepare_find_postgres()
{
	local version candidate

	if [ "${PG_CONFIG:-pg_config}" != pg_config ]; then
		return 0
	fi
	for version in 18 17 16 15; do
		candidate=/usr/lib/postgresql/$version/bin/pg_config
		if prepare_usable_postgres "$candidate"; then
			PG_CONFIG=$candidate
			return 0
		fi
	done
	candidate=$(command -v pg_config) && prepare_usable_postgres "$candidate" && PG_CONFIG=$candidate
}

prepare_has_header()
{
	local flags

	# shellcheck disable=SC2086
	flags=$(pkg-config --cflags "$2" 2>/dev/null)
	echo "#include <$1>" | cc -E $flags - >/dev/null 2>&1
}

# The PostgreSQL version that this Debian release has.
prepare_debian_postgres()
{
	local version

	version=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)
	echo "${version:-15}"
}

# Prints the Debian packages that are missing.
prepare_missing()
{
	local version

	command -v cc >/dev/null || echo gcc libc6-dev
	command -v make >/dev/null || echo make
	command -v pkg-config >/dev/null || echo pkg-config
	command -v openssl >/dev/null || echo openssl
	# https needs to know whom to trust; a minimal Debian trusts nobody
	[ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
	command -v curl >/dev/null || echo curl
	PATH=$PATH:/usr/sbin command -v nghttpx >/dev/null || echo nghttp2-proxy
	command -v prove >/dev/null || echo perl
	prepare_has_header curl/curl.h libcurl || echo libcurl4-openssl-dev
	prepare_has_header yaml.h yaml-0.1 || echo libyaml-dev
	prepare_has_header microhttpd.h libmicrohttpd || echo libmicrohttpd-dev
	prepare_has_header jansson.h jansson || echo libjansson-dev
	perl -MIPC::Run -e 1 2>/dev/null || echo libipc-run-perl
	if prepare_find_postgres; then
		if [ ! -f "$("$PG_CONFIG" --sharedir)/extension/pg_cron.control" ]; then
			version=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
			case $PG_CONFIG in
				/usr/lib/postgresql/*) echo "postgresql-$version-cron" ;;
			esac
		fi
	else
		version=$(prepare_debian_postgres)
		echo "postgresql-$version postgresql-server-dev-$version postgresql-$version-cron"
	fi
	for package in ${PREPARE_PACKAGES:-}; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
	done
}

# Installs the packages given as arguments. The PostgreSQL server's package would start a server of its own on a
# machine that had none; that is left for when somebody wants it.
prepare_install()
{
	local policy=/usr/sbin/policy-rc.d status

	echo "installing: $*"
	if [ -e "$policy" ]; then
		policy=
	else
		printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" </dev/null >"$PREPARE_LOG" 2>&1
	status=$?
	if [ -n "$policy" ]; then
		rm -f "$policy"
		trap - EXIT
	fi
	if [ "$status" -ne 0 ]; then
		tail -n 20 "$PREPARE_LOG" >&2
		prepare_fail "apt-get install failed"
	fi
}

prepare_packages()
{
	local missing

	if [ "${PG_CONFIG:-pg_config}" != pg_config ]; then
		prepare_usable_postgres "$PG_CONFIG" ||
			prepare_fail "PG_CONFIG=$PG_CONFIG names no PostgreSQL with server and server headers"
		PG_CONFIG=$(command -v "$PG_CONFIG")
	fi
	missing=$(prepare_missing | xargs)
	if [ -z "$missing" ]; then
		prepare_find_postgres
		return
	fi
	command -v apt-get >/dev/null ||
		prepare_fail "missing, by their Debian names: $missing"
	if [ "$(id -u)" -ne 0 ]; then
		echo "$(basename "$0"): packages are missing; run as root:" >&2
		echo "apt-get install --no-install-recommends $missing" >&2
		exit 1
	fi
	PREPARE_LOG=$(mktemp)
	apt-get -q update </dev/null >"$PREPARE_LOG" 2>&1 || cat "$PREPARE_LOG" >&2
	# shellcheck disable=SC2086,SC2046
	prepare_install $(prepare_missing | xargs)
	rm -f "$PREPARE_LOG"
	missing=$(prepare_missing | xargs)
	[ -z "$missing" ] || prepare_fail "still missing after apt-get install: $missing"
	prepare_find_postgres
}

# ---------------------------------------------------------------------------------------------------
# Outside

# Ends every process that works in WORK, each by its own id: what the driver itself could not end. A postmaster is
# told to shut down at once (SIGQUIT takes its children along); the rest gets SIGTERM, and what is left SIGKILL.
prepare_sweep()
{
	local signal pid dir n

	for signal in QUIT TERM KILL; do
		n=0
		while :; do
			local found=
			for dir in /proc/[0-9]*/cwd; do
				case $(readlink "$dir" 2>/dev/null) in
					"$WORK" | "$WORK"/*)
						pid=${dir#/proc/}
						pid=${pid%/cwd}
						[ "$pid" -ne $$ ] || continue
						found=1
						[ $n -eq 0 ] && kill -s $signal "$pid" 2>/dev/null
						;;
				esac
			done
			[ -n "$found" ] || return 0
			n=$((n + 1))
			[ $n -lt 50 ] || break
			sleep 0.1
		done
	done
}

prepare_cleanup()
{
	trap - EXIT INT TERM HUP
	cd /
	if [ -n "${PREPARE_CHILD:-}" ] && kill -0 "$PREPARE_CHILD" 2>/dev/null; then
		kill -TERM -- "-$PREPARE_CHILD" 2>/dev/null
		wait "$PREPARE_CHILD" 2>/dev/null
	fi
	prepare_sweep
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $WORK" >&2
	else
		rm -rf "$WORK"
	fi
}

# Runs this driver again inside, and ends with its exit status.
prepare_outside()
{
	local script repo user status
	local -a as=() env=()

	repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P) || exit 1
	script=$(realpath "$0")
	script=${script#"$repo"/}

	prepare_packages

	WORK=$(mktemp -d /tmp/chaincall.XXXXXX) || exit 1
	trap prepare_cleanup EXIT
	trap 'prepare_cleanup; exit 130' INT
	trap 'prepare_cleanup; exit 143' TERM HUP

	mkdir "$WORK/tree" "$WORK/tmp" "$WORK/home" "$WORK/socket" "$WORK/log"
	tar -C "$repo" -c --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude=./tmp_check \
		--exclude=./results --exclude=./test/modelserver/modelserver --exclude=./test/unit/build \
		--exclude=./test/module/chaincall_test--1.sql . | tar -C "$WORK/tree" -x --no-same-owner || exit 1
	touch "$WORK/tree/chaincall.control"	# the SQL is joined anew
	if [ -n "${KEY_FILE:-}" ]; then
		(umask 077 && cat "$KEY_FILE" >"$WORK/key") || exit 1
	fi

	env=(CHAINCALL_WORK="$WORK" HOME="$WORK/home" TMPDIR="$WORK/tmp" LC_ALL=C.UTF-8 TZ=UTC PG_CONFIG="$PG_CONFIG")
	for name in CC COPT WERROR SUITES FUZZ_SECONDS ROUNDS FIGURES ONLY CHAOS_JOBS CHAOS_SECONDS CHAOS_SEED KEEP URL API MODEL TERM CI; do
		[ -z "${!name:-}" ] || env+=("$name=${!name}")
	done
	if [ "$(id -u)" -eq 0 ]; then
		user=nobody
		! id postgres >/dev/null 2>&1 || user=postgres
		chown -R "$user:" "$WORK" || exit 1
		as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --init-groups)
		env+=("PATH=/usr/local/bin:/usr/bin:/bin")
	else
		env+=("PATH=$PATH")
	fi

	# In a process group of its own, so that a signal to this shell can be passed on to all of it at once.
	set -m
	(cd "$WORK/tree" && exec "${as[@]}" env -i "${env[@]}" bash "$script" "$@") </dev/null &
	PREPARE_CHILD=$!
	set +m
	wait "$PREPARE_CHILD"
	status=$?
	PREPARE_CHILD=
	exit "$status"
}

# ---------------------------------------------------------------------------------------------------
# Inside

# Makes a private PostgreSQL under $1 from the one that PG_CONFIG names, and points PG_CONFIG at it.
stage_postgres()
{
	local stage=$1 bindir sharedir pkglibdir libdir dir name

	bindir=$("$PG_CONFIG" --bindir)
	sharedir=$("$PG_CONFIG" --sharedir)
	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	libdir=$("$PG_CONFIG" --libdir)

	mkdir -p "$stage$bindir" "$stage$sharedir" "$stage$pkglibdir" "$stage$libdir"
	cp -L "$bindir"/* "$stage$bindir/" || return 1
	cp -rs "$sharedir/." "$stage$sharedir/" || return 1
	cp -rs "$pkglibdir/." "$stage$pkglibdir/" || return 1
	for name in "$libdir"/libpq* "$libdir"/libpg*; do
		[ ! -e "$name" ] || [ -e "$stage$name" ] || ln -s "$name" "$stage$name"
	done
	for dir in $("$PG_CONFIG" --includedir) $("$PG_CONFIG" --pkgincludedir) $("$PG_CONFIG" --includedir-server); do
		[ ! -e "$stage$dir" ] || continue
		mkdir -p "$(dirname "$stage$dir")"
		ln -s "$dir" "$stage$dir"
	done

	PG_CONFIG=$stage$bindir/pg_config
	for name in bindir sharedir pkglibdir; do
		case $("$PG_CONFIG" "--$name") in
			"$stage"/*) ;;
			*) prepare_fail "$bindir: this PostgreSQL does not look for its files beside its programs ($name)" ;;
		esac
	done
	export PG_CONFIG
	export PATH="$stage$bindir:$PREPARE_PATH"
}

# Builds and installs the tree $1, further arguments go to make. The output is shown when it fails.
build_tree()
{
	local tree=$1 log=$WORK/log/build.$$
	local -a options=("PG_CONFIG=$PG_CONFIG" "-j$JOBS")

	shift
	[ -z "${CC:-}" ] || options+=("CC=$CC")
	[ -z "${COPT:-}" ] || options+=("COPT=$COPT")
	[ -z "${WERROR:-}" ] || options+=("WERROR=$WERROR")
	if ! make -s -C "$tree" "${options[@]}" "$@" >"$log" 2>&1; then
		cat "$log" >&2
		return 1
	fi
	grep -E 'warning:' "$log" >&2
	return 0
}

# Makes a private PostgreSQL with the extension in it, and the model server.
prepare_build()
{
	export CHAINCALL_MODELSERVER=$WORK/tree/test/modelserver/modelserver
	stage_postgres "$WORK/postgres" && build_tree "$WORK/tree" install test/modelserver/modelserver
}

prepare()
{
	if [ -z "${CHAINCALL_WORK:-}" ]; then
		prepare_outside "$@"
	fi
	WORK=$CHAINCALL_WORK
	export PGHOST=$WORK/socket		# never somebody else's server
	JOBS=$(nproc 2>/dev/null || echo 2)
	PREPARE_PATH=$PATH
	. "$WORK/tree/test/lib/server.sh"
	trap server_stop EXIT
	trap 'exit 143' INT TERM HUP
}
