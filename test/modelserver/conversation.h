/*
 * conversation.h: what a list of messages says, in either wire format.
 */
#ifndef MODELSERVER_CONVERSATION_H
#define MODELSERVER_CONVERSATION_H

#include "server.h"

typedef struct Conversation
{
	Buf			user;			/* the text to answer: the last user message that asks something */
	Buf			system;			/* all the system texts */
	int			tokens;			/* of everything, by the server's estimate */
} Conversation;

extern bool conversation_read(Conversation *c, Request *r);
extern void conversation_free(Conversation *c);
extern void conversation_answer(Answer *a, Request *r, const Conversation *c, const json_t *schema, long max_tokens);

#endif
