# shellcheck shell=bash disable=SC2034
# A private server for the drivers; sourced by prepare.sh.

# Starts a private server named $1 with the private PostgreSQL and points libpq's variables at it. It listens on a
# unix socket under WORK only. Further arguments are settings (name=value). PRELOAD, if set, is an LD_PRELOAD for the server alone.
server_start()
{
	local name=$1 setting
	local data=$WORK/data-$name log=$WORK/log/server-$name.log

	shift
	export PGHOST=$WORK/socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	initdb -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$log" 2>&1 || {
		cat "$log" >&2
		return 1
	}
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$PGHOST'"
		echo "port = $PGPORT"
		echo "log_line_prefix = '%m [%p] %q%a '"
		cat "$WORK/tree/test/lib/postgresql.conf"
		for setting in "$@"; do
			echo "$setting"
		done
	} >>"$data/postgresql.conf"
	if ! LD_PRELOAD=${PRELOAD:-} pg_ctl -D "$data" -l "$log" -w -t 120 start >>"$log" 2>&1; then
		cat "$log" >&2
		return 1
	fi
	SERVER_DATA=$data
	SERVER_LOG=$log
}

server_stop()
{
	[ -n "${SERVER_DATA:-}" ] || return 0
	pg_ctl -D "$SERVER_DATA" -m fast -w -t 60 stop >/dev/null 2>&1 ||
		pg_ctl -D "$SERVER_DATA" -m immediate -w stop >/dev/null 2>&1
	SERVER_DATA=
}
