// Scenarios of mistakes: each is refused with a sentence, and the job goes on.
#include <atomic>
#include <future>
#include <string>
#include <vector>

#include "scenarios.h"

namespace capi_test {

Wrong mistakes() {
  Layer layer;
  // What is wrong with the model is said before anything is sent, and a later try may be right.
  poseidon_join_options options = POSEIDON_INIT(poseidon_join_options);
  poseidon_cluster* cluster = reinterpret_cast<poseidon_cluster*>(&options);
  REFUSES(poseidon_join(&options, &cluster), "the model has no tensors");
  REQUIRE(cluster == nullptr);
  REFUSES(poseidon_join(nullptr, &cluster), "a null pointer to a poseidon_join_options");
  REFUSES(poseidon_join(&options, nullptr), "a null pointer to the place for the cluster");
  options.size = 3;
  REFUSES(poseidon_join(&options, &cluster), "says that its size is 3");
  poseidon_tensor tensor = POSEIDON_INIT(poseidon_tensor);
  tensor.name = "w";
  tensor.dtype = 7;
  options.size = sizeof options;
  options.tensors = &tensor;
  options.tensor_count = 1;
  REFUSES(poseidon_join(&options, &cluster), "w has an element type 7");
  tensor.dimensions = 1;
  REFUSES(poseidon_join(&options, &cluster), "a null pointer to the shape");
  tensor.dimensions = size_t{1} << 60;
  const int64_t one = 1;
  tensor.shape = &one;
  REFUSES(poseidon_join(&options, &cluster), "dimensions, at most 16");
  tensor.size = 0;
  REFUSES(poseidon_join(&options, &cluster), "a poseidon_tensor says that its size is 0");

  REQUIRE(layer.join() == POSEIDON_OK);
  cluster = layer.cluster;
  REFUSES(poseidon_submit(cluster, 0, 0, nullptr, nullptr, nullptr), "a null pointer to a poseidon_gradient");
  REFUSES(submit(nullptr, 0, 0, layer.weight_sum), "a null pointer to a cluster");
  REFUSES(submit(cluster, 2, 0, layer.weight_sum), "there is no tensor 2");
  REFUSES(layer.submit_factors(0, layer.weight.data(), layer.weight.data(), 2), "travels by ps");
  std::vector<double> none;
  REFUSES(submit(cluster, 0, 0, none), "the gradient of ip.weight has no memory");
  std::vector<char> crooked(13 * sizeof(double));
  poseidon_gradient gradient = POSEIDON_INIT(poseidon_gradient);
  gradient.gradient = crooked.data() + 4;
  REFUSES(poseidon_submit(cluster, 0, 0, &gradient, nullptr, nullptr), "is not aligned to 8 bytes");
  REFUSES(poseidon_wait(cluster, 0, nullptr), "was not submitted without a callback");
  REFUSES(poseidon_wait(cluster, 99, nullptr), "was not submitted without a callback");
  int32_t scheme = 0;
  REFUSES(poseidon_scheme_of(cluster, 1, &scheme), "there is no layer 1");
  poseidon_part parts[2] = {POSEIDON_INIT(poseidon_part), POSEIDON_INIT(poseidon_part)};
  REFUSES(poseidon_gather(cluster, "x", 1, parts, 1), "room for 1 parts of a gathering of 2");
  const std::string long_part(8 << 20, 'x');
  REFUSES(poseidon_gather(cluster, long_part.data(), long_part.size(), parts, 2), "too much for a gathering");
  REFUSES(poseidon_note(cluster, std::string(2 << 20, 'x').c_str()), "too long");
  REFUSES(poseidon_note(cluster, nullptr), "a null pointer to the text");

  // After all these the job is as it was. The second gradient before the first has been taken is one more.
  REQUIRE(submit(cluster, 0, 5, layer.weight_sum) == POSEIDON_OK);
  REFUSES(submit(cluster, 0, 6, layer.weight_sum), "submitted again before poseidon_wait");
  REQUIRE(poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
  REFUSES(submit(cluster, 0, 5, layer.weight_sum), "was submitted for iteration 5 after iteration 5");
  REFUSES(poseidon_wait(cluster, 0, nullptr), "was not submitted");
  REQUIRE(submit(cluster, 0, 6, layer.weight_sum) == POSEIDON_OK);
  REQUIRE(poseidon_wait(cluster, 0, nullptr) == POSEIDON_OK);
  REQUIRE(poseidon_leave(cluster) == POSEIDON_OK);
  return "";
}

// Mistakes with factors: nobody is told of a release of what was not submitted.
Wrong factor_mistakes() {
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  struct Told {
    std::atomic<int> synced{0};
    std::atomic<int> released{0};
    std::promise<void> first;  // sum
  } told;
  const auto on_synced = [](void* user, const poseidon_synced*) {
    Told& t = *static_cast<Told*>(user);
    if (++t.synced == 1) t.first.set_value();
  };
  const auto released = [](void* user) { ++static_cast<Told*>(user)->released; };
  const std::vector<double> u(9, 1);
  const std::vector<double> v(12, 2);
  REFUSES(layer.submit_factors(0, u.data(), v.data(), 3, on_synced, released, &told), "3 rows of factors, 2 were announced");
  REFUSES(layer.submit_factors(0, nullptr, v.data(), 2, on_synced, released, &told), "U of layer ip has no memory");
  REFUSES(layer.submit_factors(0, u.data(), v.data(), 2, on_synced, nullptr, &told), "need one for their release too");
  REFUSES(submit(layer.cluster, 0, 0, layer.weight_sum), "submit its factors");
  REQUIRE(told.synced == 0 && told.released == 0);
  REQUIRE(layer.submit_factors(0, u.data(), v.data(), 2) == POSEIDON_OK);
  REFUSES(layer.submit_factors(1, u.data(), v.data(), 2), "submitted again before poseidon_wait");
  REQUIRE(poseidon_wait(layer.cluster, 0, nullptr) == POSEIDON_OK);
  REQUIRE(layer.submit_factors(1, u.data(), v.data(), 2, on_synced, released, &told) == POSEIDON_OK);
  told.first.get_future().wait();
  REQUIRE(poseidon_leave(layer.cluster) == POSEIDON_OK);
  poseidon_close(layer.cluster);
  layer.cluster = nullptr;
  REQUIRE(told.synced == 1 && told.released == 1);
  return "";
}

Wrong refused_in_a_worker() {
  poseidon_local_options options = POSEIDON_INIT(poseidon_local_options);
  options.workers = 1;
  REFUSES(poseidon_run_local(&options, nullptr), "this process is a worker itself");
  Layer layer;
  REQUIRE(layer.join() == POSEIDON_OK);
  REQUIRE(poseidon_leave(layer.cluster) == POSEIDON_OK);
  return "";
}

}  // namespace capi_test
