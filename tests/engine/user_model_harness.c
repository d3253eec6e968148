/* Reads a user model (d, c, m, t, width; its nine arrays, a state, an item, a context), and writes the state after an
   event of kind 1 and the user vector of it. The order of `model` is that of sanderling/kernels/layout.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int64_t sanderling_step(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
int64_t sanderling_user_vector(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

static int64_t floats(FILE *file) {
    int64_t count;
    fread(&count, 8, 1, file);
    void *array = malloc(4 * count + 4);
    fread(array, 4, count, file);
    return (int64_t)array;
}

int main(int count, char **arguments) {
    FILE *file = fopen(arguments[count - 1], "rb");
    int64_t sizes[5], model[14];
    fread(sizes, 8, 5, file);
    int64_t d = sizes[0], c = sizes[1], width = sizes[4];
    int64_t head[5] = {c, d, sizes[2], sizes[3], width};
    for (int i = 0; i < 14; i++) model[i] = i < 5 ? head[i] : floats(file);
    int64_t state = floats(file), item = floats(file), context = floats(file);
    int64_t out = (int64_t)malloc(4 * width), scratch = (int64_t)malloc(12 * width);
    sanderling_step((int64_t)model, state, item, 1, out, scratch);
    fwrite((void *)out, 4, c, stdout);
    int64_t user = (int64_t)malloc(4 * width);
    sanderling_user_vector((int64_t)model, out, context, user, scratch, 0);
    fwrite((void *)user, 4, d, stdout);
    return 0;
}
