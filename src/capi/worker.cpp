// The C ABI of a worker's life: find, join, begin, renew, gather, leave, close.
#include <algorithm>
#include <string>
#include <utility>

#include "base/text.h"
#include "capi/failure.h"
#include "capi/handle.h"
#include "capi/structs.h"

namespace poseidon::capi {
namespace {

constexpr std::size_t kDimensionsMax = 16;  // more would be read from memory that is not there

Result<DType> dtype_of(std::int32_t dtype, const char* name) {
  if (dtype == POSEIDON_FLOAT32) return DType::kFloat32;
  if (dtype == POSEIDON_FLOAT64) return DType::kFloat64;
  return Error{ErrorCode::kInvalid,
               base::concat(name, " has an element type ", dtype, ", there are POSEIDON_FLOAT32 and POSEIDON_FLOAT64")};
}

Status add_tensors(const poseidon_join_options& options, JobOptions& job) {
  const Result<std::vector<poseidon_tensor>> tensors = read_array(options.tensors, options.tensor_count, "poseidon_tensor");
  if (!tensors) return tensors.error();
  for (const poseidon_tensor& tensor : *tensors) {
    if (tensor.name == nullptr) return null_pointer("the name of a tensor");
    if (tensor.shape == nullptr && tensor.dimensions > 0) return null_pointer("the shape of a tensor");
    if (tensor.dimensions > kDimensionsMax) {
      return Error{ErrorCode::kInvalid, base::concat(tensor.name, " has ", tensor.dimensions, " dimensions, at most ",
                                                     kDimensionsMax, " are possible")};
    }
    const Result<DType> dtype = dtype_of(tensor.dtype, tensor.name);
    if (!dtype) return dtype.error();
    TensorSpec spec{.name = tensor.name, .shape = {tensor.shape, tensor.shape + tensor.dimensions}, .dtype = *dtype};
    // The product of a shape that cannot be may overflow: it is refused by the model's check, and its view with it.
    job.values.push_back({static_cast<std::byte*>(tensor.values), spec.bytes(), *dtype, {}});
    job.model.tensors.push_back(std::move(spec));
  }
  return {};
}

Status add_layers(const poseidon_join_options& options, JobOptions& job) {
  const Result<std::vector<poseidon_layer>> layers = read_array(options.layers, options.layer_count, "poseidon_layer");
  if (!layers) return layers.error();
  for (const poseidon_layer& layer : *layers) {
    if (layer.name == nullptr) return null_pointer("the name of a layer");
    if (layer.tensors == nullptr) return null_pointer("the tensors of a layer");
    LayerSpec spec{.name = layer.name, .tensors = {}, .factor_rows = layer.factor_rows};
    for (std::size_t i = 0; i < layer.tensor_count; ++i) spec.tensors.push_back(TensorId{layer.tensors[i]});
    job.model.layers.push_back(std::move(spec));
  }
  return {};
}

Result<std::vector<Letter>> letters_of(const poseidon_letter* letters, std::size_t count) {
  const Result<std::vector<poseidon_letter>> given = read_array(letters, count, "poseidon_letter");
  if (!given) return given.error();
  std::vector<Letter> all;
  for (const poseidon_letter& letter : *given) all.push_back({letter.rank, static_cast<std::byte*>(letter.memory), letter.bytes});
  return all;
}

// All sums that poseidon_wait shall take have been taken.
Status check_taken(poseidon_cluster& cluster) {
  const std::lock_guard lock(cluster.mutex);
  for (std::size_t t = 0; t < cluster.waiting.size(); ++t) {
    if (!cluster.waiting[t].submitted) continue;
    return Error{ErrorCode::kInvalid, base::concat("poseidon_wait has not taken the sum of ", cluster.model.tensors[t].name,
                                                   ": another model can be trained when all sums are taken")};
  }
  return {};
}

ProductFn product_of(const poseidon_join_options& options) {
  if (options.product == nullptr) return {};
  return [function = options.product, user = options.product_user](const Product& product) -> Status {
    poseidon_product wanted = POSEIDON_INIT(poseidon_product);
    wanted.rows = product.rows;
    wanted.outputs = product.outputs;
    wanted.inputs = product.inputs;
    wanted.u = product.u;
    wanted.v = product.v;
    wanted.out = product.out;
    wanted.out_stride = product.out_stride;
    wanted.dtype = product.dtype == DType::kFloat64 ? POSEIDON_FLOAT64 : POSEIDON_FLOAT32;
    const int code = function(user, &wanted);
    if (code == 0) return {};
    return Error{ErrorCode::kSystem, base::concat("the program's routine returned ", code)};
  };
}

}  // namespace
}  // namespace poseidon::capi

poseidon::Result<poseidon::TensorSpec> poseidon_cluster::tensor(std::uint32_t id) const {
  const std::lock_guard lock(mutex);
  if (id < model.tensors.size()) return model.tensors[id];
  return poseidon::Error{poseidon::ErrorCode::kInvalid,
                         poseidon::base::concat("there is no tensor ", id, ", the model has ", model.tensors.size())};
}

poseidon::Result<poseidon::LayerSpec> poseidon_cluster::layer(std::uint32_t id) const {
  const std::lock_guard lock(mutex);
  if (id < model.layers.size()) return model.layers[id];
  return poseidon::Error{poseidon::ErrorCode::kInvalid,
                         poseidon::base::concat("there is no layer ", id, ", the model has ", model.layers.size())};
}

using namespace poseidon;
using namespace poseidon::capi;

extern "C" {

uint32_t poseidon_abi_version(void) { return POSEIDON_ABI_VERSION; }
const char* poseidon_version(void) { return POSEIDON_VERSION_TEXT; }
const char* poseidon_last_error(void) { return last_error(); }

const char* poseidon_code_name(int code) {
  if (code == POSEIDON_OK) return "ok";
  // The names are literals, so they end with a zero and stay.
  return code_of(error_code_of(code)) == code ? to_string(error_code_of(code)).data() : "unknown";
}

const char* poseidon_scheme_name(int scheme) {
  return scheme >= POSEIDON_PS && scheme <= POSEIDON_BLOCK ? to_string(static_cast<Scheme>(scheme)).data() : "unknown";
}

int poseidon_find_job(poseidon_place* place) {
  return guarded([&]() -> int {
    Result<poseidon_place> found = read(place, "poseidon_place");
    if (!found) return fail(found.error());
    const Result<std::optional<Place>> job = find_job();
    if (!job) return fail(job.error());
    found->in_job = job->has_value() ? 1 : 0;
    found->rank = *job ? (*job)->rank : 0;
    found->workers = *job ? (*job)->workers : 1;
    write(*found, place);
    return POSEIDON_OK;
  });
}

int poseidon_join(const poseidon_join_options* options, poseidon_cluster** cluster) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("the place for the cluster"));
    *cluster = nullptr;
    const auto failed = [](const Error& why) {
      report_failure(why);
      return fail(why);
    };
    const Result<poseidon_join_options> given = read(options, "poseidon_join_options");
    if (!given) return failed(given.error());
    JobOptions job{.model = {}, .values = {}, .product = product_of(*given), .provisional = given->provisional != 0};
    if (const Status status = add_tensors(*given, job); !status) return failed(status.error());
    if (const Status status = add_layers(*given, job); !status) return failed(status.error());
    auto handle = std::make_unique<poseidon_cluster>(job.model);
    Result<std::unique_ptr<Cluster>> joined = Cluster::join(std::move(job));
    if (!joined) return fail(joined.error());
    handle->cluster = std::move(*joined);
    *cluster = handle.release();
    return POSEIDON_OK;
  });
}

void poseidon_close(poseidon_cluster* cluster) { delete cluster; }

void poseidon_forsake(poseidon_cluster* cluster) {
  // The handle stays in memory: its lock may be held by a thread of the other process.
  if (cluster != nullptr) cluster->cluster->forsake();
}

int32_t poseidon_rank(const poseidon_cluster* cluster) { return cluster == nullptr ? -1 : cluster->cluster->rank(); }
int32_t poseidon_workers(const poseidon_cluster* cluster) { return cluster == nullptr ? -1 : cluster->cluster->workers(); }

int poseidon_scheme_of(const poseidon_cluster* cluster, uint32_t layer, int32_t* scheme) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (scheme == nullptr) return fail(null_pointer("the place for a scheme"));
    if (const Result<LayerSpec> found = cluster->layer(layer); !found) return fail(found.error());
    *scheme = static_cast<int32_t>(cluster->session().scheme(LayerId{layer}));
    return POSEIDON_OK;
  });
}

const char* poseidon_plan(poseidon_cluster* cluster) {
  const char* text = nullptr;
  guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    const std::lock_guard lock(cluster->mutex);
    if (!std::exchange(cluster->has_plan, true)) cluster->plans.push_back(cluster->cluster->plan());
    text = cluster->plans.back().c_str();
    return POSEIDON_OK;
  });
  return text;
}

int poseidon_begin(poseidon_cluster* cluster, uint64_t iteration, int32_t* go) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (go == nullptr) return fail(null_pointer("the place for the answer"));
    *go = 0;
    const Result<bool> may = cluster->cluster->begin(iteration);
    if (!may) return fail(may.error());
    *go = *may ? 1 : 0;
    return POSEIDON_OK;
  });
}

int poseidon_renew(poseidon_cluster* cluster, const poseidon_join_options* options, uint64_t first) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    const Result<poseidon_join_options> given = read(options, "poseidon_join_options");
    if (!given) return fail(given.error());
    JobOptions job;
    if (const Status status = add_tensors(*given, job); !status) return fail(status);
    if (const Status status = add_layers(*given, job); !status) return fail(status);
    if (const Status status = check_taken(*cluster); !status) return fail(status);
    if (const Status status = cluster->cluster->renew(job.model, std::move(job.values), first); !status) return fail(status);
    const std::lock_guard lock(cluster->mutex);
    cluster->model = std::move(job.model);
    cluster->waiting.resize(cluster->model.tensors.size());
    cluster->has_plan = false;
    return POSEIDON_OK;
  });
}

int poseidon_leave(poseidon_cluster* cluster) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    return fail(cluster->cluster->leave());
  });
}

int poseidon_fail(poseidon_cluster* cluster, int code, const char* message) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    cluster->cluster->fail({error_code_of(code), message == nullptr ? "" : message});
    return POSEIDON_OK;
  });
}

int poseidon_error(const poseidon_cluster* cluster) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    const std::optional<Error> error = cluster->cluster->error();
    return error ? fail(*error) : POSEIDON_OK;
  });
}

int poseidon_report_failure(int code, const char* message) {
  return guarded([&]() -> int {
    report_failure({error_code_of(code), message == nullptr ? "" : message});
    return POSEIDON_OK;
  });
}

int poseidon_gather(poseidon_cluster* cluster, const void* own, size_t bytes, poseidon_part* parts, size_t part_count) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (own == nullptr && bytes > 0) return fail(null_pointer("this worker's part"));
    // Everything that can be wrong here must be known before the others wait for the part.
    const std::size_t workers = static_cast<std::size_t>(cluster->cluster->workers());
    if (part_count < workers) {
      return fail(Error{ErrorCode::kInvalid, base::concat("room for ", part_count, " parts of a gathering of ", workers)});
    }
    Result<std::vector<poseidon_part>> room = read_array(parts, workers, "poseidon_part");
    if (!room) return fail(room.error());
    Result<std::vector<std::string>> all = cluster->cluster->gather(std::string(static_cast<const char*>(own), bytes));
    if (!all) return fail(all.error());
    cluster->gathered = std::move(*all);
    for (std::size_t rank = 0; rank < workers; ++rank) {
      (*room)[rank].data = cluster->gathered[rank].data();
      (*room)[rank].bytes = cluster->gathered[rank].size();
      write((*room)[rank], at(parts, rank));
    }
    return POSEIDON_OK;
  });
}

int poseidon_exchange(poseidon_cluster* cluster, uint32_t channel, uint64_t number, const poseidon_letter* out, size_t out_count,
                      const poseidon_letter* in, size_t in_count) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    const Result<std::vector<Letter>> outgoing = letters_of(out, out_count);
    if (!outgoing) return fail(outgoing.error());
    const Result<std::vector<Letter>> incoming = letters_of(in, in_count);
    if (!incoming) return fail(incoming.error());
    return fail(cluster->cluster->exchange(channel, number, *outgoing, *incoming));
  });
}

int poseidon_span(poseidon_cluster* cluster, const char* name, int32_t is_begin) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (name == nullptr) return fail(null_pointer("the name of a span"));
    cluster->cluster->span(name, is_begin != 0);
    return POSEIDON_OK;
  });
}

int poseidon_note(poseidon_cluster* cluster, const char* text) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    if (text == nullptr) return fail(null_pointer("the text of a note"));
    return fail(cluster->cluster->note(text));
  });
}

int poseidon_get_traffic(poseidon_cluster* cluster, poseidon_traffic* traffic) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    Result<poseidon_traffic> answer = read(traffic, "poseidon_traffic");
    if (!answer) return fail(answer.error());
    const Traffic moved = cluster->cluster->traffic();
    answer->bytes_sent = moved.bytes_sent;
    answer->bytes_received = moved.bytes_received;
    write(*answer, traffic);
    return POSEIDON_OK;
  });
}

int poseidon_get_tensor_traffic(poseidon_cluster* cluster, uint32_t tensor, poseidon_traffic* traffic) {
  return guarded([&]() -> int {
    if (cluster == nullptr) return fail(null_pointer("a cluster"));
    Result<poseidon_traffic> answer = read(traffic, "poseidon_traffic");
    if (!answer) return fail(answer.error());
    const Traffic moved = cluster->cluster->traffic();
    if (tensor >= moved.tensors.size()) {
      return fail(
          Error{ErrorCode::kInvalid, base::concat("there is no tensor ", tensor, ", the model has ", moved.tensors.size())});
    }
    answer->bytes_sent = moved.tensors[tensor].sent;
    answer->bytes_received = moved.tensors[tensor].received;
    write(*answer, traffic);
    return POSEIDON_OK;
  });
}

}  // extern "C"
