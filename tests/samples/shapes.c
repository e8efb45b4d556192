#ifndef SHAPES_H
#define SHAPES_H
#include <stdio.h>
#include "a.h"

#define LIMIT 10

struct shape {
    int name;
};
typedef struct { int x; } point_t;

/* Adds up. */
static int area(int width, int height)
{
    return width * height;
}
int size(const struct shape *s);
char *name(void) { return 0; }
static const int max = 10;
#ifdef __cplusplus
extern "C" {
#endif
int z(void);
#ifdef __cplusplus
}
#endif
#endif
