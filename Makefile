# chaincall: an ordinary PGXS extension, plus drivers that need nothing installed.
#
# The file also parses where neither PostgreSQL nor its headers are installed: `make help`, `make test`,
# `make demo`, `make bench`, `make chaos` and `make fuzz` then still work, because their scripts install what is missing
# and run make again in a private copy of the tree.

all:

help:
	@sed -n 's/^#: //p' $(firstword $(MAKEFILE_LIST))

#: make                 build the extension against $(PG_CONFIG)
#: make install         install it there
#: make installcheck    run the regression tests against a running server that has it
#:
#: make test            everything: install what is missing, build, test on a private server
#:                      (SUITES="unit modelserver regress isolation tap module asan fuzz", FUZZ_SECONDS=60, KEEP=1)
#: make demo            a long legal text through a chain
#:                      (URL=... API=openai|anthropic KEY_FILE=... MODEL=...: on a real service)
#: make bench           the figures (ROUNDS=3, FIGURES="session jobs faults parked")
#: make chaos           jobs while workers, servers and models die (CHAOS_JOBS=2000, CHAOS_SECONDS=90, CHAOS_SEED=...)
#: make fuzz            the decoders under AddressSanitizer (FUZZ_SECONDS=600)
#: make unit            the tests that need no server
#: make test-chroot     make test in a bare Debian (RELEASE=bookworm|trixie|sid)
#: make test-upgrade    pg_upgrade from PostgreSQL 15 to 17 with jobs, in a bare Debian
#: make format          lay the C code out; make format-check only looks
#: make lint            what this project asks of its files and a compiler does not check
#: make clean
#:
#: PG_CONFIG=...        another PostgreSQL; also for test, demo, bench, chaos and fuzz
#: WERROR=1             warnings are errors     CC=clang, COPT=...  as in PostgreSQL
#: ASAN=1               with AddressSanitizer   TESTING=1           internal functions visible to test/module
#: BITCODE=1            also build LLVM bitcode (off: nothing here is worth inlining)

# --------------------------------------------------------------------------------------------------
# The extension

EXTENSION = chaincall
MODULE_big = chaincall
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" chaincall.control)

SRCS := $(sort $(wildcard src/*.c src/*/*.c))
HDRS := $(sort $(wildcard src/*.h src/*/*.h))
OBJS := $(SRCS:.c=.o)

# The extension's SQL, a file a concern, in the order in which it is created.
SQL_PARTS := $(addprefix sql/parts/,10_definitions.sql 20_language.sql 30_text.sql 40_calls.sql 50_json_schema.sql 60_jobs.sql 65_schedule.sql 70_monitoring.sql 90_privileges.sql)

# Versions that there are upgrades from: their SQL as it was, which is never changed again, and the ways from one to the next.
RELEASED = 0.1.0
DATA = $(RELEASED:%=sql/chaincall--%.sql) $(sort $(wildcard sql/chaincall--*--*.sql))
DATA_built = sql/chaincall--$(EXTVERSION).sql

REGRESS := $(sort $(notdir $(basename $(wildcard test/sql/*.sql))))
REGRESS_OPTS = --inputdir=test --launcher=test/lib/with-modelserver
REGRESS_PREP = test/modelserver/modelserver
ISOLATION := $(sort $(notdir $(basename $(wildcard test/specs/*.spec))))
ISOLATION_OPTS = --outputdir=test --launcher=test/lib/with-modelserver
ifneq ($(wildcard test/t/*.pl),)
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl
endif

LIB_CFLAGS := $(or $(shell pkg-config --cflags libcurl yaml-0.1 2>/dev/null),$(shell curl-config --cflags 2>/dev/null))
LIB_LIBS := $(or $(shell pkg-config --libs libcurl yaml-0.1 2>/dev/null),-lcurl -lyaml)

PG_CPPFLAGS = -I$(srcdir)/src $(LIB_CFLAGS) -DCHAINCALL_VERSION='"$(EXTVERSION)"'
SHLIB_LINK = $(LIB_LIBS)
EXTRA_CLEAN = test/unit/build test/modelserver/modelserver sql/chaincall--$(EXTVERSION).sql

# --------------------------------------------------------------------------------------------------
# Variants

# PostgreSQL's own headers do not survive -Wextra without these.
HEADER_NOISE = -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
ifdef WERROR
PG_CFLAGS += -Wall -Wextra -Werror $(HEADER_NOISE)
endif

# clang is given the flags, and through pg_config.h the printf attribute, of the compiler that PostgreSQL was built with.
ifneq ($(findstring clang,$(CC)),)
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif

ifdef ASAN
TESTING = 1
PG_CFLAGS += -fsanitize=address -fno-omit-frame-pointer -O1
SHLIB_LINK += -fsanitize=address
endif

ifdef TESTING
# Makes visible what PostgreSQL 16 and later hide, for test/module to call.
override CFLAGS_SL_MODULE =
else ifeq ($(shell uname -s),Linux)
# PostgreSQL loads modules with RTLD_GLOBAL: only chaincall_* may be seen by other extensions.
SHLIB_LINK += -Wl,--version-script=src/chaincall.map
$(MODULE_big).so: src/chaincall.map
endif

# --------------------------------------------------------------------------------------------------
# PGXS

PG_CONFIG ?= pg_config
PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))

ifneq ($(PGXS),)

ifndef BITCODE
override with_llvm = no
endif
include $(PGXS)

# PGXS knows no header dependencies.
$(OBJS): $(HDRS) Makefile chaincall.control

else

all install installcheck uninstall:
	@echo "$(PG_CONFIG) names no PostgreSQL with server headers (Debian: postgresql-server-dev-15)." >&2
	@echo "Install them or set PG_CONFIG; 'make test' and 'make demo' install what they need." >&2
	@exit 1

clean:
	rm -f $(OBJS) chaincall.so
	rm -rf $(EXTRA_CLEAN)

endif

$(DATA_built): $(SQL_PARTS) chaincall.control Makefile
	@{ printf "%s\n" '\echo Use "CREATE EXTENSION chaincall" to load this file. \quit'; \
	   for part in $(SQL_PARTS); do printf '\n'; cat $$part || exit 1; done; } > $@.tmp
	mv $@.tmp $@

# --------------------------------------------------------------------------------------------------
# Tests and tools; the scripts do the work

# The scripts get what was said on the command line by environment.
export PG_CONFIG SUITES FUZZ_SECONDS ROUNDS FIGURES CHAOS_JOBS CHAOS_SECONDS CHAOS_SEED KEEP URL API KEY_FILE MODEL RELEASE

test:
	@MAKEFLAGS= test/run

demo:
	@MAKEFLAGS= test/demo/run

bench:
	@MAKEFLAGS= test/bench/run

chaos:
	@MAKEFLAGS= test/chaos/run

fuzz:
	@MAKEFLAGS= SUITES=fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) test/run

test-chroot:
	@MAKEFLAGS= test/chroot $(or $(RELEASE),bookworm) test

test-upgrade:
	@MAKEFLAGS= test/chroot trixie test-upgrade-inside

test-upgrade-inside:
	@MAKEFLAGS= test/upgrade/run

test/modelserver/modelserver: $(wildcard test/modelserver/*.[ch])
	$(MAKE) -C test/modelserver

# The policies are arithmetic over plain structs: they are tested as a plain program, without PostgreSQL.
UNIT := $(patsubst test/unit/%.c,test/unit/build/%,$(wildcard test/unit/*.c))
UNIT_CFLAGS = -std=gnu99 -g -O1 -Wall -Wextra -Isrc -Itest/unit -fsanitize=address,undefined -fno-sanitize-recover=undefined

unit: $(UNIT)
	@test/lib/run-unit $(UNIT)

test/unit/build/%: test/unit/%.c $(wildcard src/policy/*.[ch] test/unit/*.h)
	@mkdir -p $(@D)
	$(or $(UNIT_CC),cc) $(UNIT_CFLAGS) -o $@ $< $(wildcard src/policy/*.c) -lm

C_FILES = $(wildcard src/*.[ch] src/*/*.[ch] test/*/*.[ch])

format:
	test/format $(C_FILES)

format-check:
	test/format --check $(C_FILES)

lint:
	@test/lint

print-sql-parts:
	@echo $(SQL_PARTS)

print-released:
	@echo $(RELEASED)

clean: clean-tests
clean-tests:
	rm -rf test/unit/build test/results test/output_iso
	@! test -f test/modelserver/Makefile || $(MAKE) -s -C test/modelserver clean
	@test -z "$(PGXS)" || ! test -f test/module/Makefile || $(MAKE) -s -C test/module clean

.PHONY: all help install installcheck uninstall clean clean-tests test demo bench chaos fuzz test-chroot test-upgrade test-upgrade-inside unit format format-check lint print-sql-parts print-released
