/*
 * kin.c: which words go together. A model without weights knows no synonyms;
 * this small table knows those that mails, contracts and instructions use, so that
 * "I was charged twice" is about billing.
 */
#include "text.h"

#include <string.h>

#define MAX_KIN 12

static const struct
{
	const char *word;
	const char *kin[MAX_KIN];
} table[] = {
	/* what instructions ask for */
	{"obligation", {"must", "shall", "required", "need", "agree", "oblige", "comply", "provide"}},
	{"duty", {"must", "shall", "required", "need"}},
	{"deadline", {"days", "date", "within", "before", "until", "after", "later", "due"}},
	{"date", {"days", "year", "month", "until"}},
	{"right", {"may", "permission", "grant", "permitted", "free", "license"}},
	{"risk", {"warranty", "liability", "damage", "loss", "terminate", "penalty"}},
	/* labels of mails */
	{"billing", {"invoice", "charge", "pay", "payment", "refund", "price", "bill", "money", "card", "subscription", "fee", "account"}},
	{"technical", {"error", "crash", "bug", "install", "login", "password", "broken", "fail", "server", "screen", "connect", "update"}},
	{"shipping", {"delivery", "parcel", "package", "tracking", "arrive", "courier", "sent"}},
	{"sales", {"buy", "quote", "order", "purchase", "offer", "discount", "demo"}},
	{"complaint", {"angry", "unacceptable", "disappointed", "terrible", "worst"}},
	{"spam", {"winner", "prize", "lottery", "click", "viagra"}},
	{"legal", {"contract", "law", "lawyer", "court", "clause", "license"}},
	{"positive", {"good", "great", "love", "excellent", "happy", "thank", "perfect", "wonderful", "nice"}},
	{"negative", {"bad", "terrible", "hate", "poor", "angry", "disappointed", "awful", "broken", "worst"}},
	{"urgent", {"asap", "immediately", "now", "today", "emergency", "deadline", "hurry", "quickly"}},
	{"high", {"urgent", "critical", "severe", "immediately", "asap"}},
	{"low", {"minor", "sometime", "trivial", "whenever"}},
	/* fields of contracts and invoices */
	{"start", {"begin", "commence", "effective", "from"}},
	{"end", {"expire", "until", "terminate", "termination", "to"}},
	{"due", {"deadline", "by", "before", "until", "payable"}},
	{"amount", {"sum", "total", "price", "fee", "pay", "cost", "rent"}},
	{"price", {"amount", "cost", "fee", "each", "unit"}},
	{"total", {"sum", "amount"}},
	{"qty", {"quantity", "pieces", "pcs", "units", "times"}},
	{"quantity", {"qty", "pieces", "pcs", "units", "times"}},
	{"party", {"between", "and", "company", "seller", "buyer", "supplier", "customer", "tenant", "landlord"}},
	{"customer", {"client", "buyer"}},
	{"vendor", {"supplier", "seller"}},
	{"person", {"mr", "mrs", "ms", "dr"}}};

#define ENTRIES (sizeof(table) / sizeof(table[0]))

/* The place of a word (by its stem) in the table, or -1. */
int
text_kin_of(uint64_t stem)
{
	static uint64_t words[ENTRIES];

	if (words[0] == 0)
		for (size_t i = 0; i < ENTRIES; i++)
			words[i] = text_stem(table[i].word, strlen(table[i].word));
	for (size_t i = 0; i < ENTRIES; i++)
		if (words[i] == stem)
			return (int) i;
	return -1;
}

/* Does a word (by its stem) belong to what the one at this place names? */
bool
text_is_kin(int place, uint64_t stem)
{
	static uint64_t stems[ENTRIES][MAX_KIN];

	if (place < 0)
		return false;
	if (stems[place][0] == 0)
		for (int k = 0; k < MAX_KIN && table[place].kin[k]; k++)
			stems[place][k] = text_stem(table[place].kin[k], strlen(table[place].kin[k]));
	for (int k = 0; k < MAX_KIN && stems[place][k]; k++)
		if (stems[place][k] == stem)
			return true;
	return false;
}
