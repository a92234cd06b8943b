/* The list of reasons (reasons.h) as tables that Python and the documentation read. */
#include "forward/reasons.h"

#include <stddef.h>

static const struct {
	const char *name, *text;
	unsigned kind;
} reasons[REASON_COUNT] = {
	[REASON_FORWARD] = { "forward", "forwarded", REASON_KIND_FORWARD },
#define REASON(kind_, name_, text_) [REASON_##name_] = { #name_, text_, REASON_KIND_##kind_ },
	REASON_LIST(REASON)
#undef REASON
};

unsigned reason_count(void)
{
	return REASON_COUNT;
}

const char *reason_name(unsigned reason)
{
	return reason < REASON_COUNT ? reasons[reason].name : NULL;
}

const char *reason_text(unsigned reason)
{
	return reason < REASON_COUNT ? reasons[reason].text : NULL;
}

unsigned reason_kind(unsigned reason)
{
	return reason < REASON_COUNT ? reasons[reason].kind : REASON_KIND_FORWARD;
}
