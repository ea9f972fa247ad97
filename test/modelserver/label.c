#include "server.h"
json_t *label_fill(const json_t *schema, const char *text, size_t len){(void)schema;(void)text;(void)len;return json_object();}
json_t *label_miss(const json_t *right){(void)right;return json_string("unfit-answer");}
