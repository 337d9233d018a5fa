/* A multilayer perceptron written by hand in C, trained by several worker processes.
 *
 *   gunzip -c examples/digits/digits.csv.gz > digits.csv
 *   mlp --data digits.csv --workers 4 --scheme sfb
 *
 * The same training as examples/mlp_cpp, through the C interface: 64 pixels, a hidden layer of tanh, 10 digits with softmax,
 * plain SGD in double precision. The batch is the global one, so whatever the number of workers and the scheme, the losses are
 * those of one process but for the last bits.
 *
 * The program is its own launcher: started by hand it starts itself --workers times, and those find a job to join.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poseidon/poseidon.h"

enum { PIXELS = 64, DIGITS = 10, HIDDEN_MAX = 1024, WORKERS_MAX = 64, RECORDS_MAX = 2000 };
#define WHITE 16.0  /* pixels are 0 to 16 */
#define TEST_EVERY 5 /* each fifth record is kept for the test */

typedef struct options {
  const char* data;
  const char* scheme;
  const char* curve; /* a file that gets each iteration's loss */
  int workers;
  int batch; /* of all workers together */
  int hidden;
  int iterations;
  double rate;
} options;

typedef struct digits {
  double pixels[RECORDS_MAX][PIXELS]; /* from 0 to 1 */
  int digit[RECORDS_MAX];
  int count;
} digits;

/* A fully connected layer: its values, and the memory for their gradients, in which the sums over all workers arrive. */
typedef struct layer {
  uint32_t id, tensors[2]; /* the weight and the bias */
  int outputs, inputs;
  double *weight, *bias;         /* [outputs, inputs], [outputs] */
  double *weight_sum, *bias_sum; /* likewise */
  int is_out;                    /* submitted and not settled */
} layer;

static digits train, test;

static int complain(const char* text) {
  fprintf(stderr, "mlp: %s\n", text);
  return 1;
}

static void* need(size_t count) {
  void* memory = calloc(count, sizeof(double));
  if (memory == NULL) exit(complain("out of memory"));
  return memory;
}

static int parse(int argc, char** argv, options* o) {
  int i;
  for (i = 1; i < argc; i += 2) {
    const char* value = argv[i + 1]; /* null at the end */
    if (value == NULL) return complain("a flag needs a value");
    if (strcmp(argv[i], "--data") == 0) o->data = value;
    else if (strcmp(argv[i], "--scheme") == 0) o->scheme = value;
    else if (strcmp(argv[i], "--curve") == 0) o->curve = value;
    else if (strcmp(argv[i], "--workers") == 0) o->workers = atoi(value);
    else if (strcmp(argv[i], "--batch") == 0) o->batch = atoi(value);
    else if (strcmp(argv[i], "--hidden") == 0) o->hidden = atoi(value);
    else if (strcmp(argv[i], "--iterations") == 0) o->iterations = atoi(value);
    else if (strcmp(argv[i], "--rate") == 0) o->rate = atof(value);
    else return complain("the flags are --data --workers --scheme --batch --hidden --iterations --rate --curve");
  }
  if (o->workers < 1 || o->workers > WORKERS_MAX) return complain("--workers must be from 1 to 64");
  if (o->batch < 1 || o->batch % o->workers != 0) return complain("--batch must be a multiple of --workers");
  if (o->hidden < 1 || o->hidden > HIDDEN_MAX || o->iterations < 0) return complain("--hidden or --iterations is out of bounds");
  return 0;
}

/* Lines of a digit and 64 pixels: the records for training, and those for testing. 0: all is well. */
static int read_digits(const char* file) {
  FILE* lines = fopen(file, "r");
  int record, i;
  if (lines == NULL) return complain("the data cannot be read: gunzip -c examples/digits/digits.csv.gz > digits.csv");
  for (record = 0;; ++record) {
    digits* set = record % TEST_EVERY == TEST_EVERY - 1 ? &test : &train;
    int digit, pixel;
    if (fscanf(lines, "%d", &digit) != 1) break;
    if (set->count == RECORDS_MAX || digit < 0 || digit >= DIGITS) break;
    for (i = 0; i < PIXELS && fscanf(lines, ",%d", &pixel) == 1; ++i) set->pixels[set->count][i] = pixel / WHITE;
    if (i < PIXELS) break;
    set->digit[set->count++] = digit;
  }
  i = feof(lines) && test.count > 0;
  fclose(lines);
  return i ? 0 : complain("the data is not lines of a digit and 64 pixels");
}

static void make_layer(layer* l, uint32_t id, int outputs, int inputs) {
  memset(l, 0, sizeof *l);
  l->id = id;
  l->tensors[0] = 2 * id;
  l->tensors[1] = 2 * id + 1;
  l->outputs = outputs;
  l->inputs = inputs;
  l->weight = need((size_t)(outputs * inputs));
  l->bias = need((size_t)outputs);
  l->weight_sum = need((size_t)(outputs * inputs));
  l->bias_sum = need((size_t)outputs);
}

static void free_layer(layer* l) {
  free(l->weight);
  free(l->bias);
  free(l->weight_sum);
  free(l->bias_sum);
}

/* Uniform in +-1/sqrt(inputs), by SplitMix64: the same on every machine. */
static void fill(layer* l, uint64_t state) {
  int i;
  for (i = 0; i < l->outputs * l->inputs; ++i) {
    uint64_t word = state += UINT64_C(0x9E3779B97F4A7C15);
    word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
    word ^= word >> 31;
    l->weight[i] = (2 * ((double)(word >> 11) / 9007199254740992.0) - 1) / sqrt((double)l->inputs);
  }
}

/* y [rows, outputs] = x W' + b */
static void forward(const layer* l, const double* x, double* y, int rows) {
  int r, o, i;
  for (r = 0; r < rows; ++r) {
    for (o = 0; o < l->outputs; ++o) {
      double sum = l->bias[o];
      for (i = 0; i < l->inputs; ++i) sum += l->weight[o * l->inputs + i] * x[r * l->inputs + i];
      y[r * l->outputs + o] = sum;
    }
  }
}

static void squash(double* values, int count) {
  int i;
  for (i = 0; i < count; ++i) values[i] = tanh(values[i]);
}

/* The loss of a row, and its errors at the output, softmax(y) - digit, which take the place of y. */
static double softmax_loss(double* y, int digit, int* right) {
  int d, best = 0;
  double most, sum = 0, loss;
  for (d = 1; d < DIGITS; ++d) best = y[d] > y[best] ? d : best;
  *right += best == digit;
  most = y[best];
  for (d = 0; d < DIGITS; ++d) sum += exp(y[d] - most);
  loss = log(sum) + most - y[digit];
  for (d = 0; d < DIGITS; ++d) y[d] = exp(y[d] - most) / sum - (d == digit ? 1 : 0);
  return loss;
}

/* Hands a layer's gradient over, as the plan says: itself, or the two factors of which it is the product. */
static int submit(poseidon_cluster* cluster, layer* l, uint64_t iteration, const double* errors, const double* inputs, int rows) {
  poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
  int32_t scheme;
  int r, o, i, code = poseidon_scheme_of(cluster, l->id, &scheme);
  if (code != POSEIDON_OK) return code;
  l->is_out = 1;
  if (scheme != POSEIDON_PS) {
    poseidon_factors factors = POSEIDON_INIT(poseidon_factors);
    factors.outputs = errors;
    factors.inputs = inputs;
    factors.rows = (size_t)rows;
    factors.weight = l->weight_sum;
    factors.bias = l->bias_sum;
    factors.samples = (uint32_t)rows;
    return poseidon_submit_factors(cluster, l->id, iteration, &factors, NULL, NULL);
  }
  memset(l->weight_sum, 0, (size_t)(l->outputs * l->inputs) * sizeof(double));
  memset(l->bias_sum, 0, (size_t)l->outputs * sizeof(double));
  for (r = 0; r < rows; ++r) {
    for (o = 0; o < l->outputs; ++o) {
      const double error = errors[r * l->outputs + o];
      l->bias_sum[o] += error;
      for (i = 0; i < l->inputs; ++i) l->weight_sum[o * l->inputs + i] += error * inputs[r * l->inputs + i];
    }
  }
  gradient.samples = (uint32_t)rows;
  gradient.gradient = l->weight_sum;
  code = poseidon_submit(cluster, l->tensors[0], iteration, &gradient, NULL, NULL);
  if (code != POSEIDON_OK) return code;
  gradient.gradient = l->bias_sum;
  return poseidon_submit(cluster, l->tensors[1], iteration, &gradient, NULL, NULL);
}

/* Waits for a layer's sums, where some are outstanding, and makes its step of SGD. */
static int settle(poseidon_cluster* cluster, layer* l, double rate) {
  poseidon_synced synced = POSEIDON_INIT(poseidon_synced);
  int32_t scheme;
  int i, code;
  if (!l->is_out) return POSEIDON_OK;
  l->is_out = 0;
  code = poseidon_scheme_of(cluster, l->id, &scheme);
  if (code == POSEIDON_OK && scheme == POSEIDON_PS) code = poseidon_wait(cluster, l->tensors[1], NULL);
  if (code == POSEIDON_OK) code = poseidon_wait(cluster, l->tensors[0], &synced);
  if (code != POSEIDON_OK) return code;
  rate /= (double)synced.samples;
  for (i = 0; i < l->outputs * l->inputs; ++i) l->weight[i] -= rate * l->weight_sum[i];
  for (i = 0; i < l->outputs; ++i) l->bias[i] -= rate * l->bias_sum[i];
  return POSEIDON_OK;
}

/* What one iteration works on; U and V of a submission lie here until its layer is settled. */
typedef struct batch {
  double *x, *h, *y, *errors; /* [rows, pixels], [rows, hidden], [rows, digits], [rows, hidden] */
} batch;

/* One iteration. A layer's gradient leaves as soon as it is there, and its sum is wanted only when the next forward pass reaches
 * the layer: in between the worker computes, and the engine sends. Two batches take turns, since the next one's input is
 * written while the last one's may still be on its way. */
static int step(poseidon_cluster* cluster, const options* o, layer* hidden, layer* output, const batch* b, uint64_t iteration,
                int rows) {
  char text[96];
  double loss = 0;
  int r, i, d, right = 0, code;
  const int first = rows * poseidon_rank(cluster);
  static int digit[RECORDS_MAX];
  for (r = 0; r < rows; ++r) {
    const int record = (int)((iteration * (uint64_t)o->batch + (uint64_t)(first + r)) % (uint64_t)train.count);
    memcpy(b->x + r * PIXELS, train.pixels[record], sizeof train.pixels[record]);
    digit[r] = train.digit[record];
  }
  if ((code = settle(cluster, hidden, o->rate)) != POSEIDON_OK) return code;
  forward(hidden, b->x, b->h, rows);
  squash(b->h, rows * hidden->outputs);
  if ((code = settle(cluster, output, o->rate)) != POSEIDON_OK) return code;
  forward(output, b->h, b->y, rows);
  for (r = 0; r < rows; ++r) loss += softmax_loss(b->y + r * DIGITS, digit[r], &right);
  if ((code = submit(cluster, output, iteration, b->y, b->h, rows)) != POSEIDON_OK) return code;
  /* The errors at the hidden layer's output, through the output layer and tanh. */
  for (r = 0; r < rows; ++r) {
    for (i = 0; i < hidden->outputs; ++i) {
      const double value = b->h[r * hidden->outputs + i];
      double sum = 0;
      for (d = 0; d < DIGITS; ++d) sum += b->y[r * DIGITS + d] * output->weight[d * output->inputs + i];
      b->errors[r * hidden->outputs + i] = sum * (1 - value * value);
    }
  }
  if ((code = submit(cluster, hidden, iteration, b->errors, b->x, rows)) != POSEIDON_OK) return code;
  sprintf(text, "loss %llu %a %d", (unsigned long long)iteration, loss, right);
  return poseidon_note(cluster, text);
}

static int run_test(poseidon_cluster* cluster, const layer* hidden, const layer* output) {
  char text[96];
  double h[HIDDEN_MAX], y[DIGITS];
  int r, right = 0;
  for (r = 0; r < test.count; ++r) {
    forward(hidden, test.pixels[r], h, 1);
    squash(h, hidden->outputs);
    forward(output, h, y, 1);
    softmax_loss(y, test.digit[r], &right);
  }
  sprintf(text, "test %d %d", right, test.count);
  return poseidon_note(cluster, text);
}

static int join(layer* hidden, layer* output, int rows, poseidon_cluster** cluster) {
  static const char* const names[] = {"hidden.weight", "hidden.bias", "output.weight", "output.bias"};
  int64_t shapes[4][2];
  poseidon_tensor tensors[4];
  poseidon_layer layers[2];
  poseidon_join_options join_options = POSEIDON_INIT(poseidon_join_options);
  layer* both[2];
  int t, i;
  both[0] = hidden;
  both[1] = output;
  memset(tensors, 0, sizeof tensors);
  memset(layers, 0, sizeof layers);
  for (t = 0; t < 4; ++t) {
    layer* l = both[t / 2];
    shapes[t][0] = l->outputs;
    shapes[t][1] = l->inputs;
    tensors[t].size = sizeof tensors[t];
    tensors[t].name = names[t];
    tensors[t].shape = shapes[t];
    tensors[t].dimensions = t % 2 == 0 ? 2 : 1;
    tensors[t].dtype = POSEIDON_FLOAT64;
    tensors[t].values = t % 2 == 0 ? l->weight : l->bias;
  }
  for (i = 0; i < 2; ++i) {
    layers[i].size = sizeof layers[i];
    layers[i].name = i == 0 ? "hidden" : "output";
    layers[i].tensors = both[i]->tensors;
    layers[i].tensor_count = 2;
    /* The gradient of the weight is a sum of as many outer products as this worker has rows, so it may travel as factors. */
    layers[i].factor_rows = (size_t)rows;
  }
  join_options.tensors = tensors;
  join_options.tensor_count = 4;
  join_options.layers = layers;
  join_options.layer_count = 2;
  return poseidon_join(&join_options, cluster);
}

static int train_all(poseidon_cluster* cluster, const options* o, layer* hidden, layer* output, const batch* batches, int rows) {
  uint64_t iteration;
  int code;
  for (iteration = 0; iteration < (uint64_t)o->iterations; ++iteration) {
    int32_t go;
    if ((code = poseidon_begin(cluster, iteration, &go)) != POSEIDON_OK) return code;
    if (!go) break;
    if ((code = step(cluster, o, hidden, output, &batches[iteration % 2], iteration, rows)) != POSEIDON_OK) return code;
  }
  if ((code = settle(cluster, hidden, o->rate)) != POSEIDON_OK) return code;
  if ((code = settle(cluster, output, o->rate)) != POSEIDON_OK) return code;
  if (poseidon_rank(cluster) == 0 && (code = run_test(cluster, hidden, output)) != POSEIDON_OK) return code;
  return poseidon_leave(cluster);
}

static int work(const options* o, const poseidon_place* place) {
  const int rows = o->batch / place->workers;
  poseidon_cluster* cluster = NULL;
  layer hidden, output;
  batch batches[2];
  int i, code;
  if (rows > RECORDS_MAX || read_digits(o->data) != 0) {
    poseidon_report_failure(POSEIDON_INVALID, "the data cannot be used; the worker's log says why");
    return 1;
  }
  make_layer(&hidden, 0, o->hidden, PIXELS);
  make_layer(&output, 1, DIGITS, o->hidden);
  for (i = 0; i < 2; ++i) {
    batches[i].x = need((size_t)(rows * PIXELS));
    batches[i].h = need((size_t)(rows * o->hidden));
    batches[i].y = need((size_t)(rows * DIGITS));
    batches[i].errors = need((size_t)(rows * o->hidden));
  }
  if (place->rank == 0) { /* the others' values come from here */
    fill(&hidden, 1);
    fill(&output, 2);
  }
  code = join(&hidden, &output, rows, &cluster);
  if (code == POSEIDON_OK) code = train_all(cluster, o, &hidden, &output, batches, rows);
  if (code != POSEIDON_OK) complain(poseidon_last_error());
  poseidon_close(cluster); /* before the memory that it uses */
  for (i = 0; i < 2; ++i) {
    free(batches[i].x);
    free(batches[i].h);
    free(batches[i].y);
    free(batches[i].errors);
  }
  free_layer(&hidden);
  free_layer(&output);
  return code == POSEIDON_OK ? 0 : 1;
}

/* The launcher's side of the notes: what each worker has said of each iteration, and how many have. */
typedef struct report {
  const options* o;
  double* loss;  /* [iterations, workers] */
  int* right;    /* [iterations] */
  int* told;     /* [iterations] */
  int complete;  /* iterations that all have told; each worker tells its own in order, so they are complete in order */
} report;

static double mean_loss(const report* r, int iteration) {
  double sum = 0;
  int rank;
  for (rank = 0; rank < r->o->workers; ++rank) sum += r->loss[iteration * r->o->workers + rank];
  return sum / r->o->batch;
}

static void on_note(void* user, int32_t rank, const char* text) {
  report* r = user;
  int iteration, right, tested;
  double loss;
  if (sscanf(text, "loss %d %la %d", &iteration, &loss, &right) == 3) {
    if (iteration < 0 || iteration >= r->o->iterations) return;
    r->loss[iteration * r->o->workers + rank] = loss;
    r->right[iteration] += right;
    if (++r->told[iteration] < r->o->workers) return;
    r->complete = iteration + 1;
    if (iteration % 20 != 0 && iteration + 1 != r->o->iterations) return;
    printf("iteration %4d: loss %.6f, accuracy %.2f %%\n", iteration, mean_loss(r, iteration),
           100.0 * r->right[iteration] / r->o->batch);
    fflush(stdout);
  } else if (sscanf(text, "test %d %d", &right, &tested) == 2) {
    printf("test: %d of %d digits right, %.2f %%\n", right, tested, 100.0 * right / tested);
  }
}

static int write_curve(const report* r) {
  FILE* file;
  int i, failed;
  if (r->o->curve == NULL) return 0;
  file = fopen(r->o->curve, "w");
  if (file == NULL) return complain("the curve cannot be written");
  for (i = 0; i < r->complete; ++i) fprintf(file, "%.17g\n", mean_loss(r, i));
  failed = ferror(file);
  return fclose(file) != 0 || failed ? complain("the curve cannot be written") : 0;
}

static int launch(const options* o) {
  poseidon_local_options job = POSEIDON_INIT(poseidon_local_options);
  poseidon_local_end end = POSEIDON_INIT(poseidon_local_end);
  report r;
  int code;
  r.o = o;
  r.loss = need((size_t)(o->iterations * o->workers) + 1);
  r.right = need((size_t)o->iterations + 1);
  r.told = need((size_t)o->iterations + 1);
  r.complete = 0;
  job.workers = o->workers;
  job.schemes = o->scheme;
  job.on_note = on_note;
  job.user = &r;
  code = poseidon_run_local(&job, &end) == POSEIDON_OK ? write_curve(&r) : complain(poseidon_last_error());
  free(r.loss);
  free(r.right);
  free(r.told);
  return code == 0 && end.interrupted != 0 ? 128 + end.interrupted : code;
}

int main(int argc, char** argv) {
  options o = {"digits.csv", "auto", NULL, 1, 120, 32, 200, 0.5};
  poseidon_place place = POSEIDON_INIT(poseidon_place);
  if (parse(argc, argv, &o) != 0) return 1;
  if (poseidon_find_job(&place) != POSEIDON_OK) return complain(poseidon_last_error());
  return place.in_job ? work(&o, &place) : launch(&o);
}
