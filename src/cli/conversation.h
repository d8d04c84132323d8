/* conversation.h - turns on a terminal. */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "cli/session.h"

/* Asks, answers and reports until the user leaves; the session's context is open. format: as
 * ot_chat_tokenize takes it. Returns the exit code. */
int conversation(struct session *s, const char *format);

#endif
