/* A device without Python: a photograph to a stream, the same bytes as `splitrun encode`.
 *
 *     cc -std=c99 -O2 device.c sz.c -I include -L lib -lopenvino_c -o device
 *     ./device encoder.xml coder.bin photo.ppm photo.sz
 *
 * The graph is that of a bundle for OpenVINO, in fp32; include and lib are those of OpenVINO. The
 * photograph is a PPM whose shorter side has MODEL_SHORTER_SIDE pixels: a camera, or ImageMagick,
 * resizes. Models with one output, symbols, run so: those of a factorized prior.
 */
#include <openvino/c/openvino.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "sz.h"

enum { PLANE = MODEL_HEIGHT * MODEL_WIDTH, MOST_PIXELS = 1 << 28 };

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static void check(ov_status_e status, const char *what)
{
    if (status != OK)
        fail(what, ov_get_error_info(status));
}

static void *allocated(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory)
        fail("memory", "there is too little");
    return memory;
}

/* Returns a file's content; its size is a multiple of 4 only by chance, its address always is. */
static uint8_t *content_of(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    long end = -1;
    if (file && !fseek(file, 0, SEEK_END))
        end = ftell(file);
    if (end < 0 || fseek(file, 0, SEEK_SET))
        fail(path, "cannot be read");
    uint8_t *content = allocated((size_t)end);
    *size = fread(content, 1, (size_t)end, file);
    fclose(file);
    return content;
}

/* Returns the corner of the centre, rounded as Python rounds: halves to even. */
static long corner_of(long side, long kept)
{
    const long rest = side - kept;
    return rest / 2 + (rest % 2 && rest / 2 % 2);
}

/* Cuts the centre out of a PPM, and normalises it: (3, MODEL_HEIGHT, MODEL_WIDTH). */
static void read_photo(const char *path, float *values)
{
    static const float mean[3] = MODEL_MEAN, std[3] = MODEL_STD;
    FILE *file = fopen(path, "rb");
    long width, height;
    if (!file || fscanf(file, "P6 %ld %ld 255", &width, &height) != 2 || fgetc(file) == EOF)
        fail(path, "is no PPM with 8 bits");
    if (width < MODEL_WIDTH || height < MODEL_HEIGHT || width > MOST_PIXELS / height ||
        (width < height ? width : height) != MODEL_SHORTER_SIDE)
        fail(path, "has another size than the model takes, see model.h");
    uint8_t *pixels = allocated(3 * (size_t)width * (size_t)height);
    if (fread(pixels, 3 * (size_t)width, (size_t)height, file) != (size_t)height)
        fail(path, "ends too early");
    fclose(file);
    const uint8_t *corner =
        pixels + 3 * (corner_of(height, MODEL_HEIGHT) * width + corner_of(width, MODEL_WIDTH));
    for (long i = 0; i < PLANE; i++)
        for (long colour = 0; colour < 3; colour++) {
            const uint8_t level = corner[3 * (i / MODEL_WIDTH * width + i % MODEL_WIDTH) + colour];
            values[colour * PLANE + i] = ((float)level / 255.0f - mean[colour]) / std[colour];
        }
    free(pixels);
}

/* Runs the graph, and returns its symbols, which live as long as the program. */
static sz_planes symbols_of(const char *graph, float *values)
{
    const int64_t input[4] = {1, 3, MODEL_HEIGHT, MODEL_WIDTH};
    ov_core_t *core;
    ov_compiled_model_t *model;
    ov_infer_request_t *request;
    ov_tensor_t *image, *symbols;
    ov_shape_t shape;
    ov_element_type_e type;
    void *data;
    check(ov_core_create(&core), "OpenVINO");
    /* Symbols are not rounded to their neighbours where the processor has bf16. */
    check(ov_core_compile_model_from_file(core, graph, "CPU", 6, &model,
                                          "INFERENCE_PRECISION_HINT", "f32", "PERFORMANCE_HINT",
                                          "LATENCY", "NUM_STREAMS", "1"),
          graph);
    check(ov_compiled_model_create_infer_request(model, &request), graph);
    check(ov_shape_create(4, input, &shape), graph);
    check(ov_tensor_create_from_host_ptr(F32, shape, values, &image), graph);
    check(ov_infer_request_set_input_tensor(request, image), graph);
    check(ov_infer_request_infer(request), graph);
    check(ov_infer_request_get_output_tensor(request, &symbols), graph);
    check(ov_tensor_get_shape(symbols, &shape), graph);
    check(ov_tensor_get_element_type(symbols, &type), graph);
    check(ov_tensor_data(symbols, &data), graph);
    if (shape.rank != 4 || shape.dims[0] != 1 || type != I32)
        fail(graph, "does not give symbols (1, C, h, w) int32");
    const sz_planes planes = {(int32_t)shape.dims[1], (int32_t)shape.dims[2],
                              (int32_t)shape.dims[3], data, NULL};
    return planes;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage", "device GRAPH coder.bin PHOTO.ppm STREAM.sz");
    size_t tables_size, size;
    uint8_t *tables = content_of(argv[2], &tables_size);
    sz_coder coder;
    sz_status status = sz_open(&coder, tables, tables_size);
    if (status)
        fail(argv[2], sz_message(status));
    float *values = allocated(3 * PLANE * sizeof *values);
    read_photo(argv[3], values);
    const sz_planes planes = symbols_of(argv[1], values);
    const size_t memory_bytes = sz_memory_bytes(&coder, &planes);
    const size_t most = SZ_MOST_BYTES(planes.channels * planes.height * planes.width);
    uint8_t *stream = allocated(most);
    status = sz_encode(&coder, 0, &planes, NULL, allocated(memory_bytes), memory_bytes, stream, most,
                       &size);
    if (status)
        fail(argv[3], sz_message(status));
    FILE *file = fopen(argv[4], "wb");
    if (!file || fwrite(stream, 1, size, file) != size || fclose(file))
        fail(argv[4], "cannot be written");
    printf("%s: %lu bytes\n", argv[4], (unsigned long)size);
    return 0;
}
