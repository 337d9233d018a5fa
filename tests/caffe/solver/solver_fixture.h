// What the tests of solvers share: a small data base, a net of every kind of layer on it, and a host that writes down
// what it is told.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "caffe/data/data_bases.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/caffe/solver/solver.h"
#include "engines/torch/local_exchange.h"

namespace poseidon::caffe::testing {

class SolverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1);
    // 23 images [1, 6, 6] of arbitrary pixels, three classes.
    LmdbWriter writer({folder_ / "images"});
    for (int i = 0; i < 23; ++i) {
      proto::Datum datum = testing_data::numbered_datum(i, 6);
      for (std::size_t p = 0; p < datum.bytes.size(); ++p)
        datum.bytes[p] = static_cast<char>((p * 37 + static_cast<std::size_t>(i) * 101) * 7919 % 251);
      datum.label = i % 3;
      writer.append(testing_data::numbered_key(i), proto::datum_bytes(datum));
    }
    writer.finish();
  }

  // The inside of a net: Data (of the given batch), Convolution, Pooling, ReLU, Dropout, InnerProduct, losses.
  std::string net(int train_batch, int test_batch = 3) const {
    const auto data = [&](std::string_view phase, int batch) {
      return base::concat("layer { name: 'data' type: 'Data' top: 'data' top: 'label' include { phase: ", phase,
                          " } transform_param { scale: 0.01 } data_param { backend: LMDB batch_size: ", batch,
                          " source: '", (folder_ / "images").string(), "' } }\n");
    };
    return base::concat("name: 'small' ", data("TRAIN", train_batch), data("TEST", test_batch), R"(
        layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv' param { lr_mult: 1 } param { lr_mult: 2 }
                convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } } }
        layer { name: 'pool' type: 'Pooling' bottom: 'conv' top: 'pool' pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: 'ip1' type: 'InnerProduct' bottom: 'pool' top: 'ip1' inner_product_param { num_output: 8 weight_filler { type: 'xavier' } } }
        layer { name: 'relu' type: 'ReLU' bottom: 'ip1' top: 'ip1' }
        layer { name: 'drop' type: 'Dropout' bottom: 'ip1' top: 'ip1' dropout_param { dropout_ratio: 0.3 } }
        layer { name: 'ip2' type: 'InnerProduct' bottom: 'ip1' top: 'ip2' inner_product_param { num_output: 3 weight_filler { type: 'xavier' } } }
        layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip2' bottom: 'label' top: 'loss' }
        layer { name: 'accuracy' type: 'Accuracy' bottom: 'ip2' bottom: 'label' top: 'accuracy' include { phase: TEST } })");
  }

  // A solver of that net. `more` is added to its settings, and goes before the number of iterations and the like.
  proto::Message settings(int train_batch, std::string_view more, int test_batch = 3) const {
    std::string text =
        base::concat("net_param { ", net(train_batch, test_batch), " }\n",
                     "base_lr: 0.1 weight_decay: 0.01 lr_policy: 'inv' gamma: 0.1 power: 0.75 snapshot_prefix: '",
                     prefix(), "' ", more);
    if (more.find("type:") == more.npos) text += " momentum: 0.9";
    if (more.find("max_iter") == more.npos) text += " max_iter: 10";
    if (more.find("snapshot_after_train") == more.npos) text += " snapshot_after_train: false";
    return proto::parse_text(text, "SolverParameter", "solver.prototxt");
  }
  std::string prefix() const { return (folder_ / "snapshots" / "small").string(); }

  testing_data::TemporaryFolder folder_;
};

// A solver that trains alone.
struct Alone {
  explicit Alone(const proto::Message& settings, SolverOptions options = {.dtype = at::kDouble})
      : solver(settings, standard_layers(), options), exchange(solver.parameters(), solver.update_function()) {}

  bool train(SolverHost& host) { return solver.train(exchange, host); }
  bool train() {
    SolverHost silent;
    return train(silent);
  }

  Solver solver;
  aten::LocalExchange exchange;
};

class NotingHost : public SolverHost {
 public:
  void on_iteration(const IterationReport& report) override {
    iterations.push_back(report);
    notes += base::concat("iteration ", report.iteration, "; ");
  }
  void on_test(const TestReport& report) override {
    tests.push_back(report);
    notes += base::concat("test ", report.iteration, "; ");
  }
  void on_snapshot(const SnapshotReport& report) override {
    snapshots.push_back(report);
    notes += base::concat("snapshot ", report.iteration, "; ");
  }

  std::string notes;
  std::vector<IterationReport> iterations;
  std::vector<TestReport> tests;
  std::vector<SnapshotReport> snapshots;
};

}  // namespace poseidon::caffe::testing
