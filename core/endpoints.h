#ifndef DOCKRUN_ENDPOINTS_H
#define DOCKRUN_ENDPOINTS_H
#include <stdbool.h>
#include <stddef.h>
enum dr_body { DR_BODY_NONE, DR_BODY_JSON, DR_BODY_BYTES };
enum dr_answer { DR_ANSWER_NONE, DR_ANSWER_JSON, DR_ANSWER_TEXT, DR_ANSWER_HEADERS, DR_ANSWER_BYTES, DR_ANSWER_LINES, DR_ANSWER_FRAMES, DR_ANSWER_HIJACK };
struct dr_endpoint { const char *name, *method, *path, *query; enum dr_body body; enum dr_answer answer; bool auth; };
extern const struct dr_endpoint dr_endpoints[]; extern const size_t dr_endpoints_count;
#endif
