// The command `poseidon`: finds the subcommand and turns whatever escapes it into a sentence and an exit code.
#include <array>
#include <cstdio>
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "apps/poseidon/command.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::app {
namespace {

struct Subcommand {
  std::string name;
  std::string purpose;
  int (*run)(const std::vector<std::string>& arguments);
};

const std::vector<Subcommand>& subcommands() {
  static const std::vector<Subcommand> list = {
      {"run", "train a script for one process on many", &run_command},
      {"train", "train a net on one or more workers", &train_command},
      {"test", "score a trained net", &test_command},
      {"time", "measure each layer, forward and backward", &time_command},
      {"replay", "measure the engine on a model description, without a framework", &replay_command},
      {"plan", "predict how fast a cluster trains", &plan_command},
      {"serve", "be a dedicated server of a job; launchers start it", &serve_command},
      {"agent", "start a job's processes on a host; `poseidon run` calls it", &agent_command},
      {"features", "keep what a trained net computes on the way", &features_command},
      {"convert-model", "write a trained model in another format", &convert_model_command},
      {"devices", "show what this host has to compute and communicate with", &devices_command},
      {"convert-cifar", "make data bases from CIFAR-10's files", &convert_cifar_command},
      {"convert-images", "make a data base from image files", &convert_images_command},
      {"convert-mnist", "make a data base from MNIST's files", &convert_mnist_command},
      {"draw-net", "draw a net as a graph", &draw_net_command},
      {"image-mean", "compute the mean image of a data base", &image_mean_command},
      {"parse-log", "make tables of a training's log", &parse_log_command},
      {"partition-data", "cut a data base into parts", &partition_data_command},
      {"plot-log", "draw the curves of trainings", &plot_log_command},
      {"upgrade-net", "rewrite a net of an older form of Caffe's files", &upgrade_net_command},
      {"upgrade-solver", "rewrite a solver of an older form", &upgrade_solver_command},
  };
  return list;
}

void print_help() {
  std::printf("poseidon %s: trains a deep network on many workers, with the mathematics of one.\n\nUsage: poseidon SUBCOMMAND [FLAGS]\n\n",
              POSEIDON_VERSION);
  for (const Subcommand& subcommand : subcommands()) std::printf("  %-16s %s\n", subcommand.name.c_str(), subcommand.purpose.c_str());
  std::fputs(
      "\n`poseidon SUBCOMMAND --help` shows the flags of a subcommand.\n"
      "\n"
      "Examples, from the root of the source tree:\n"
      "  examples/digits/create_lmdb.sh\n"
      "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 2\n"
      "  poseidon train --solver examples/digits/lenet_solver.prototxt --workers 4 --scheme sfb --iterations 100\n"
      "  poseidon test --model examples/digits/lenet_train_test.prototxt \\\n"
      "      --weights examples/digits/snapshots/lenet_iter_600.caffemodel --iterations 8\n"
      "  poseidon time --model examples/digits/lenet_train_test.prototxt --iterations 50\n"
      "\n"
      "Exit codes: 0 done; 1 a mistake in poseidon itself; 2 wrong flags; 3 wrong input (prototxt, data, snapshot, plan);\n"
      "4 a worker died or fell silent; 5 the system said no (disk full, port in use); 130 and 143 interrupted.\n",
      stdout);
}

int run(const std::vector<std::string>& arguments) {
  const std::string name = arguments.empty() ? "" : arguments.front();
  if (name == "--version" || name == "version") {
    std::printf("poseidon %s\n", POSEIDON_VERSION);
    return kSuccess;
  }
  if (name.empty() || name == "--help" || name == "-h" || name == "help") {
    print_help();
    return name.empty() ? kWrongUsage : kSuccess;
  }
  std::vector<std::string> names;
  for (const Subcommand& subcommand : subcommands()) {
    if (name == subcommand.name) return subcommand.run({arguments.begin() + 1, arguments.end()});
    names.push_back(subcommand.name);
  }
  std::fprintf(stderr, "poseidon: there is no subcommand \"%s\"%s `poseidon --help` lists them\n", name.c_str(),
               (base::did_you_mean(name, names) + (base::near_matches(name, names).empty() ? ";" : "")).c_str());
  return kWrongUsage;
}

// Commands of others as links to this program: of the published edition, and Caffe's tools.
struct OtherName {
  std::string_view name;
  int (*run)(const std::vector<std::string>& arguments);
};
constexpr std::array kOtherNames = {
    OtherName{"caffe", &caffe_command},
    OtherName{"caffe.bin", &caffe_command},
    OtherName{"compute_image_mean", &image_mean_command},
    OtherName{"convert_cifar_data", &convert_cifar_command},
    OtherName{"convert_imageset", &convert_images_command},
    OtherName{"convert_mnist_data", &convert_mnist_command},
    OtherName{"psd_run", &run_command},
    OtherName{"upgrade_net_proto_binary", &upgrade_net_command},
    OtherName{"upgrade_net_proto_text", &upgrade_net_command},
    OtherName{"upgrade_solver_proto_text", &upgrade_solver_command},
};

int run_as(std::string_view path, const std::vector<std::string>& arguments) {
  const std::string_view name = path.substr(path.rfind('/') == path.npos ? 0 : path.rfind('/') + 1);
  for (const OtherName& other : kOtherNames) {
    if (name == other.name) return other.run(arguments);
  }
  return run(arguments);
}

}  // namespace
}  // namespace poseidon::app

int main(int argc, char** argv) {
  try {
    return poseidon::app::run_as(argv[0], {argv + 1, argv + argc});
  } catch (const poseidon::caffe::ConfigError& error) {
    std::fprintf(stderr, "poseidon: %s\n", error.what());
    return poseidon::app::kWrongInput;
  } catch (const poseidon::caffe::SystemError& error) {
    std::fprintf(stderr, "poseidon: %s\n", error.what());
    return poseidon::app::kSystem;
  } catch (const std::bad_alloc&) {
    std::fputs("poseidon: out of memory\n", stderr);
    return poseidon::app::kSystem;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "poseidon: %s\n", error.what());
    return poseidon::app::kBroken;
  }
}
