# What the extension consists of in a database, in every detail that PostgreSQL keeps, as lines of text that two databases can be compared by.
package Catalog;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(extension_catalog differences);

# Partitions of span are of the day that they were made for: they count as one, and must all be alike.
my $sql = <<'SQL';
SET search_path = '';
WITH member AS MATERIALIZED (
	SELECT d.classid, d.objid, i.type, pg_catalog.regexp_replace(i.identity, 'span_\d{8}', 'span_DAY', 'g') AS identity
	FROM pg_catalog.pg_depend d
	JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall',
		pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
	WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
), part AS MATERIALIZED (
	-- what belongs to a table of the extension, and the columns
	SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS classid, m.objid, a.attnum::int AS sub, 'column' AS type, m.identity || '.' || a.attname AS identity
	FROM member m JOIN pg_catalog.pg_attribute a ON a.attrelid = m.objid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
	UNION ALL
	SELECT d.classid, d.objid, 0, i.type, pg_catalog.regexp_replace(i.identity, 'span_\d{8}', 'span_DAY', 'g')
	FROM member m JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = m.objid
		AND d.deptype IN ('a', 'i', 'P', 'S') AND d.classid IN ('pg_catalog.pg_trigger'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
			'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_rewrite'::pg_catalog.regclass),
		pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
	WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid AND t.tgisinternal)
	UNION ALL
	SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, x.indexrelid, 0, 'index',
		pg_catalog.regexp_replace(x.indexrelid::pg_catalog.regclass::text, 'span_\d{8}', 'span_DAY', 'g')
	FROM member m JOIN pg_catalog.pg_index x ON x.indrelid = m.objid
	WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
), thing AS MATERIALIZED (
	SELECT classid, objid, 0 AS sub, type, identity FROM member
	UNION ALL
	SELECT * FROM part
), acl AS (
	SELECT t.identity, t.type, a.kind, pg_catalog.string_agg(pg_catalog.format('%s=%s%s/%s', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END,
		a.privilege_type, CASE WHEN a.is_grantable THEN '*' ELSE '' END, a.grantor::pg_catalog.regrole), ' '
		ORDER BY CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END COLLATE "C", a.privilege_type COLLATE "C", a.grantor) AS value
	FROM thing t,
	LATERAL (
		SELECT 'privileges' AS kind, e.* FROM pg_catalog.pg_class c, pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, c.relowner))) e
		WHERE t.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = t.objid AND t.sub = 0 AND c.relkind NOT IN ('i', 'I')
		UNION ALL
		SELECT 'privileges', e.* FROM pg_catalog.pg_attribute c, pg_catalog.aclexplode(c.attacl) e
		WHERE t.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.attrelid = t.objid AND t.sub > 0 AND c.attnum = t.sub
		UNION ALL
		SELECT 'privileges', e.* FROM pg_catalog.pg_proc c, pg_catalog.aclexplode(coalesce(c.proacl, pg_catalog.acldefault('f', c.proowner))) e
		WHERE t.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND c.oid = t.objid
		UNION ALL
		SELECT 'privileges', e.* FROM pg_catalog.pg_type c, pg_catalog.aclexplode(coalesce(c.typacl, pg_catalog.acldefault('T', c.typowner))) e
		WHERE t.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND c.oid = t.objid
		UNION ALL
		SELECT 'privileges', e.* FROM pg_catalog.pg_language c, pg_catalog.aclexplode(coalesce(c.lanacl, pg_catalog.acldefault('l', c.lanowner))) e
		WHERE t.classid = 'pg_catalog.pg_language'::pg_catalog.regclass AND c.oid = t.objid
		UNION ALL
		SELECT 'privileges', e.* FROM pg_catalog.pg_foreign_data_wrapper c, pg_catalog.aclexplode(coalesce(c.fdwacl, pg_catalog.acldefault('F', c.fdwowner))) e
		WHERE t.classid = 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass AND c.oid = t.objid
		UNION ALL
		SELECT 'initial privileges', e.* FROM pg_catalog.pg_init_privs c, pg_catalog.aclexplode(c.initprivs) e
		WHERE c.classoid = t.classid AND c.objoid = t.objid AND c.objsubid = t.sub
	) a
	GROUP BY t.identity, t.type, a.kind, t.objid
), line AS (
	SELECT 'extension' AS type, 'chaincall' AS identity, f.name, f.value
	FROM pg_catalog.pg_extension e, LATERAL (VALUES
		('version', e.extversion),
		('owner', e.extowner::pg_catalog.regrole::text),
		('schema', e.extnamespace::pg_catalog.regnamespace::text),
		('relocatable', e.extrelocatable::text),
		('dumped tables', (SELECT pg_catalog.string_agg(pg_catalog.format('%s (%s)', c.t::pg_catalog.regclass, c.condition), ', ' ORDER BY c.t::pg_catalog.regclass::text)
			FROM ROWS FROM (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition)) AS c (t, condition))),
		('comment', pg_catalog.obj_description(e.oid, 'pg_extension'))) f (name, value)
	WHERE e.extname = 'chaincall'
	UNION ALL
	SELECT 'schema', n.nspname::text, f.name, f.value
	FROM pg_catalog.pg_namespace n, LATERAL (VALUES
		('owner', n.nspowner::pg_catalog.regrole::text),
		('privileges', (SELECT pg_catalog.string_agg(a::text, ' ' ORDER BY a::text) FROM pg_catalog.unnest(n.nspacl) a)),
		('comment', pg_catalog.obj_description(n.oid, 'pg_namespace'))) f (name, value)
	WHERE n.nspname = 'chaincall'
	UNION ALL
	SELECT type, identity, 'is', 'there' FROM thing
	UNION ALL
	SELECT type, identity, 'comment', CASE WHEN sub = 0 THEN pg_catalog.obj_description(objid, classid::pg_catalog.regclass::name) ELSE pg_catalog.col_description(objid, sub) END
	FROM thing
	UNION ALL
	SELECT type, identity, kind, value FROM acl
	UNION ALL
	SELECT t.type, t.identity, f.name, f.value
	FROM thing t JOIN pg_catalog.pg_class c ON t.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = t.objid AND t.sub = 0, LATERAL (VALUES
		('owner', c.relowner::pg_catalog.regrole::text),
		('kind', c.relkind::text),
		('persistence', c.relpersistence::text),
		('access method', (SELECT a.amname::text FROM pg_catalog.pg_am a WHERE a.oid = c.relam)),
		('options', (SELECT pg_catalog.string_agg(o, ' ' ORDER BY o) FROM pg_catalog.unnest(c.reloptions) o)),
		('TOAST options', (SELECT pg_catalog.string_agg(o, ' ' ORDER BY o) FROM pg_catalog.pg_class toast, pg_catalog.unnest(toast.reloptions) o WHERE toast.oid = c.reltoastrelid)),
		('has TOAST', (c.reltoastrelid <> 0)::text),
		('tablespace', c.reltablespace::text),
		('replica identity', c.relreplident::text),
		('row security', c.relrowsecurity::text || c.relforcerowsecurity::text),
		('partition key', pg_catalog.pg_get_partkeydef(c.oid)),
		('is partition', c.relispartition::text),
		('partition bound', CASE WHEN c.relname !~ '^span_\d{8}$' THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END),
		('parents', (SELECT pg_catalog.string_agg(i.inhparent::pg_catalog.regclass::text, ' ') FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)),
		('type of', nullif(c.reloftype, 0)::pg_catalog.regtype::text),
		('view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END),
		('rules', (SELECT pg_catalog.string_agg(pg_catalog.pg_get_ruledef(r.oid) || r.ev_enabled::text, ' ') FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND c.relkind NOT IN ('v', 'm'))),
		('index', CASE WHEN c.relkind IN ('i', 'I') THEN (SELECT pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(c.oid), 'span_\d{8}', 'span_DAY', 'g')
			|| pg_catalog.concat_ws(' ', '', x.indisprimary, x.indisvalid, x.indisready, x.indisclustered, x.indisreplident, x.indimmediate)
			FROM pg_catalog.pg_index x WHERE x.indexrelid = c.oid) END),
		('sequence', (SELECT s::text FROM (SELECT s.seqtypid::pg_catalog.regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle FROM pg_catalog.pg_sequence s WHERE s.seqrelid = c.oid) s)),
		('order of columns', CASE WHEN c.relkind NOT IN ('i', 'I') THEN (SELECT pg_catalog.string_agg(CASE WHEN a.attisdropped THEN '(dropped)' ELSE a.attname END, ', ' ORDER BY a.attnum)
			FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) END)) f (name, value)
	UNION ALL
	SELECT t.type, t.identity, f.name, f.value
	FROM thing t JOIN pg_catalog.pg_attribute a ON t.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.attrelid = t.objid AND a.attnum = t.sub AND t.sub > 0, LATERAL (VALUES
		('type', pg_catalog.format_type(a.atttypid, a.atttypmod)),
		('not null', a.attnotnull::text),
		('default', (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)),
		('identity, generated', a.attidentity::text || a.attgenerated::text),
		('storage', a.attstorage::text || a.attcompression::text),
		('collation', nullif(a.attcollation, 0)::pg_catalog.regcollation::text),
		('statistics', a.attstattarget::text),
		-- pg_attver is a stamp that some minor releases of the server set themselves
		('options', (SELECT pg_catalog.string_agg(o, ' ' ORDER BY o) FROM pg_catalog.unnest(a.attoptions) o WHERE o NOT LIKE 'pg\_attver=%'))) f (name, value)
	UNION ALL
	SELECT t.type, t.identity, 'definition', CASE t.classid
		WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_get_constraintdef(t.objid), c.convalidated, c.condeferrable, c.connoinherit) FROM pg_catalog.pg_constraint c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass THEN (SELECT pg_catalog.regexp_replace(pg_catalog.pg_get_triggerdef(t.objid), 'span_\d{8}', 'span_DAY', 'g') || ' ' || c.tgenabled::text FROM pg_catalog.pg_trigger c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_policy'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', c.polcmd, c.polpermissive, c.polroles::pg_catalog.regrole[], pg_catalog.pg_get_expr(c.polqual, c.polrelid), 'CHECK',
			pg_catalog.pg_get_expr(c.polwithcheck, c.polrelid)) FROM pg_catalog.pg_policy c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_event_trigger'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', c.evtevent, c.evtfoid::pg_catalog.regprocedure, c.evtenabled, c.evttags) FROM pg_catalog.pg_event_trigger c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass THEN pg_catalog.pg_get_statisticsobjdef(t.objid)
		WHEN 'pg_catalog.pg_cast'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', c.castfunc::pg_catalog.regprocedure, c.castcontext, c.castmethod) FROM pg_catalog.pg_cast c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_operator'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', c.oprcode, c.oprrest, c.oprjoin, c.oprcanhash, c.oprcanmerge) FROM pg_catalog.pg_operator c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', c.fdwowner::pg_catalog.regrole, c.fdwhandler::pg_catalog.regprocedure, c.fdwvalidator::pg_catalog.regprocedure, c.fdwoptions) FROM pg_catalog.pg_foreign_data_wrapper c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_language'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', c.lanowner::pg_catalog.regrole, c.lanpltrusted, c.lanplcallfoid::pg_catalog.regprocedure, c.laninline::pg_catalog.regprocedure, c.lanvalidator::pg_catalog.regprocedure) FROM pg_catalog.pg_language c WHERE c.oid = t.objid)
		WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN (SELECT pg_catalog.concat_ws(' ', c.typowner::pg_catalog.regrole, c.typtype, c.typlen, c.typbyval, c.typnotnull, pg_catalog.format_type(c.typbasetype, c.typtypmod), c.typdefault,
			(SELECT pg_catalog.string_agg(l.enumlabel, ',' ORDER BY l.enumsortorder) FROM pg_catalog.pg_enum l WHERE l.enumtypid = c.oid),
			(SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ',' ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.contypid = c.oid)) FROM pg_catalog.pg_type c WHERE c.oid = t.objid)
		END
	FROM thing t WHERE t.sub = 0
	UNION ALL
	SELECT t.type, t.identity, f.name, f.value
	FROM thing t JOIN pg_catalog.pg_proc p ON t.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = t.objid, LATERAL (VALUES
		('owner', p.proowner::pg_catalog.regrole::text),
		('language', (SELECT l.lanname::text FROM pg_catalog.pg_language l WHERE l.oid = p.prolang)),
		('arguments', pg_catalog.pg_get_function_arguments(p.oid)),
		('result', pg_catalog.pg_get_function_result(p.oid)),
		('source', p.prosrc),
		('body', pg_catalog.pg_get_function_sqlbody(p.oid)),
		('library', p.probin),
		('attributes', pg_catalog.concat_ws(' ', p.prokind, p.prosecdef, p.proleakproof, p.proisstrict, p.proretset, p.provolatile, p.proparallel, p.procost, p.prorows, p.prosupport)),
		('settings', p.proconfig::text)) f (name, value)
)
SELECT DISTINCT type || ' ' || identity || ': ' || name || ': ' || pg_catalog.regexp_replace(value, '[\r\n]+', ' // ', 'g') FROM line WHERE value IS NOT NULL AND value <> ''
ORDER BY 1;
SQL

# The lines, of the database that a Chaincall::Session is in.
sub extension_catalog
{
	my ($session) = @_;
	my @lines = split /\n/, $session->must($sql);

	$session->must('RESET search_path');
	return \@lines;
}

# Lines of one only, marked - and +, for people to read; none when they are equal.
sub differences
{
	my ($one, $other) = @_;
	my %one = map { $_ => 1 } @$one;
	my %other = map { $_ => 1 } @$other;

	return map { s/^(.)([^\t]*)/$1 $2/r } sort { substr($a, 1) cmp substr($b, 1) || $b cmp $a } ((map { "-$_" } grep { !$other{$_} } @$one), (map { "+$_" } grep { !$one{$_} } @$other));
}

1;
