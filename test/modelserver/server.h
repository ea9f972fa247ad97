/*
 * server.h: what the parts of the stand-in model server share.
 */
#ifndef MODELSERVER_SERVER_H
#define MODELSERVER_SERVER_H

#include <jansson.h>
#include <microhttpd.h>

#include "buf.h"

typedef enum Endpoint
{
	ENDPOINT_NONE,				/* a GET, or a path that is not served */
	ENDPOINT_CHAT,
	ENDPOINT_EMBEDDINGS,
	ENDPOINT_IMAGES,
	ENDPOINT_MESSAGES,
	ENDPOINT_JSON
} Endpoint;

typedef enum Model
{
	MODEL_UNKNOWN,
	MODEL_EXTRACTIVE,
	MODEL_KEYWORDS,
	MODEL_EMBEDDING,
	MODEL_LABELS,
	MODEL_ECHO,
	MODEL_FIXED,
	MODEL_DELAY,
	MODEL_PICTURE,
	MODEL_COUNT
} Model;

typedef enum Reset
{
	RESET_NONE,
	RESET_HEAD,
	RESET_MID
} Reset;

typedef enum Broken
{
	BROKEN_NONE,
	BROKEN_JSON,
	BROKEN_HTML,
	BROKEN_EMPTY,
	BROKEN_NUL,
	BROKEN_UNUL,
	BROKEN_UTF8,
	BROKEN_DEEP,
	BROKEN_DEEPTEXT,
	BROKEN_TYPE
} Broken;

typedef enum Refuse
{
	REFUSE_NONE,
	REFUSE_REFUSAL,
	REFUSE_FILTER
} Refuse;

/* What is to go wrong with one request; fault.c fills it, README.md lists the keys. */
typedef struct Fault
{
	bool		active;			/* any key was given, and times and percent say so */
	int			status;
	long		times;			/* -1: always */
	int			percent;		/* -1: always */
	int			mix;			/* of 100 requests, each in another way; 0: none */
	long		delay_ms;
	long		pace_ms;		/* between the events of a stream */
	Reset		reset;
	long		drip;			/* bytes in 100 ms; 0: as fast as it goes */
	Broken		broken;
	long		size;			/* bytes of the whole body; 0: as it is */
	long		miss;
	Refuse		refuse;
	bool		hang;
	bool		gzip;
	char		message[256];
	char		retry_after[64];
	char		redirect[1024];
} Fault;

/* What a wire format makes of an answer. */
typedef struct Reply
{
	int			status;
	const char *type;			/* Content-Type */
	Buf			body;
	size_t		pad_at;			/* where the padding goes, and how much */
	size_t		pad_len;
	bool		stream;			/* events, sent one by one */
} Reply;

typedef struct Request
{
	struct MHD_Connection *connection;
	Endpoint	endpoint;
	bool		counted;
	bool		too_large;
	bool		decided;		/* the reply is made; only sending is left */
	bool		gone;			/* the client closed while we waited */
	Buf			body;
	json_t	   *json;
	const char *idempotency_key;	/* valid as long as the connection's headers */
	const char *model_name;		/* as asked, fault suffix included */
	Model		model;
	long		wait_ms;		/* before answering: the model's and the fault's */
	bool		waited;
	Fault		fault;
	Reply		reply;
	struct MHD_Response *fixed; /* made once, shared, not owned */
	size_t		sent;
	bool		paused;			/* the pause before the next piece is over */

	/* loop.c */
	int64_t		due_us;
	int			heap_at;		/* -1: not in the heap */
	bool		parked;
	struct Request *next_free;
} Request;

typedef struct Options
{
	int			port;
	const char *port_file;
	const char *cert_file;
	const char *key_file;
	const char *api_key;
	const char *log_file;
	int			max_connections;
	bool		exit_with_stdin;
} Options;

extern Options options;

/* loop.c: waiting without threads */
extern int64_t loop_now_us(void);
extern void loop_park(Request *r, long ms);
extern int	loop_run(struct MHD_Daemon *daemon);

/* http.c: requests in, replies out */
extern struct MHD_Daemon *http_start(int listen_fd, const char *cert, const char *key);
extern void http_stop(struct MHD_Daemon *daemon);

/* count.c: what the tests ask about afterwards */
extern bool count_open_log(const char *file);
extern void count_connection(bool opened);
extern void count_start(Request *r, const char *method, const char *url);
extern void count_model(Model model);
extern void count_end(const Request *r, bool answered);
extern long count_key(const char *kind, const char *key, size_t len);
extern void count_stats(Buf *out, const char *key);
extern void count_keys(Buf *out);
extern void count_last(Buf *out, int n);
extern void count_reset(void);

/* fault.c */
extern bool fault_parse(Fault *f, const char *text, size_t len, Buf *error);
extern bool fault_parse_json(Fault *f, const json_t *value, Buf *error);
extern void fault_decide(Request *r);
extern void fault_break(Request *r);

/* model.c: names, and what each model answers */
typedef struct Answer
{
	Buf			text;			/* the text, or the JSON of a structured answer */
	bool		structured;
	bool		cut;			/* by max_tokens */
	int			tokens;
} Answer;

extern Model model_find(const char *name, size_t len, long *delay_ms);
extern const char *model_name(Model model);
extern void model_answer(Answer *a, Request *r, const Buf *user, const Buf *system, const json_t *schema, long max_tokens);

/* label.c, schema.c: the model `labels` */
extern json_t *label_fill(const json_t *schema, const char *text, size_t len);
extern const char *schema_strict_fault(const json_t *schema, int depth);
extern json_t *label_miss(const json_t *right);

/* the wire formats: openai.c, anthropic.c, service.c */
extern bool openai_fixed(Request *r);
extern void openai_chat(Request *r);
extern void openai_embeddings(Request *r);
extern void openai_images(Request *r);
extern void openai_models(Buf *out);
extern void openai_error(Reply *reply, int status, const char *code, const char *message);
extern void anthropic_messages(Request *r);
extern void anthropic_error(Reply *reply, int status, const char *message);
extern void service_json(Request *r);
extern void reply_error(Request *r, int status, const char *code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
extern void reply_id(Buf *out, const char *prefix);

/* picture.c */
extern void picture_png(Buf *out, const char *prompt, size_t len, int width, int height, int number);
extern void gzip_stored(Buf *b);

/* Stands in an answer's text for what a fault puts in its place; see fault_break. */
#define SPLICE_MARK "q7splice7q"

#endif
