/*
 * schema_regex.c
 *	  Regular expressions of schemas, by PostgreSQL's engine.
 *
 * They are compiled once when the schema is, to be refused at CREATE if they
 * cannot be, and taken from PostgreSQL's cache afterwards.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "chain/schema.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "regex/regex.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

static regex_t *compiled(const SchemaRegex *regex);
static char *translated(const char *source);

/*
 * Sets regex to what source means; both live as long as the caller keeps
 * them.  Raises an error when PostgreSQL cannot compile it; line as in the
 * body, 0 when there is none.
 */
void
schema_regex_compile(SchemaRegex *regex, const char *source, int line)
{
	MemoryContext context = CurrentMemoryContext;

	regex->source = source;
	regex->regex = cstring_to_text(translated(source));
	PG_TRY();
	{
		(void) compiled(regex);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_INVALID_REGULAR_EXPRESSION)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_REGULAR_EXPRESSION),
				 line > 0 ? errmsg("line %d: %s in \"%s\"", line, error->message, source) :
				 errmsg("%s in \"%s\"", error->message, source),
				 errhint("Regular expressions are PostgreSQL's.")));
	}
	PG_END_TRY();
}

/*
 * Does it match anywhere in the text?  False when that could not be found
 * out.  Takes as long as the expression makes it.
 */
bool
schema_regex_match(const SchemaRegex *regex, const char *text, int len, bool *matches)
{
	regex_t    *expression = compiled(regex);
	pg_wchar   *wide = palloc((len + 1) * sizeof(pg_wchar));
	int			result;

	result = pg_regexec(expression, wide, pg_mb2wchar_with_len(text, wide, len), 0,
						NULL, 0, NULL, 0);
	pfree(wide);
	*matches = result == REG_OKAY;
	return result == REG_OKAY || result == REG_NOMATCH;
}

/* From PostgreSQL's own cache of compiled expressions; what is written means the
 * same in every database. */
static regex_t *
compiled(const SchemaRegex *regex)
{
	return RE_compile_and_cache(regex->regex, REG_ADVANCED | REG_NOSUB, C_COLLATION_OID);
}

/*
 * JSON Schema's regular expressions are JavaScript's, where \b is the edge of
 * a word; in PostgreSQL it is a backspace and the edge is \y.
 */
static char *
translated(const char *source)
{
	StringInfoData buf;
	bool		bracket = false;

	initStringInfo(&buf);
	for (const char *p = source; *p != '\0'; p++)
	{
		appendStringInfoChar(&buf, *p);
		if (*p == '\\' && p[1] != '\0')
		{
			p++;
			appendStringInfoChar(&buf, !bracket && *p == 'b' ? 'y' :
								 !bracket && *p == 'B' ? 'Y' : *p);
		}
		else if (*p == '[')
			bracket = true;
		else if (*p == ']')
			bracket = false;
	}
	return buf.data;
}
