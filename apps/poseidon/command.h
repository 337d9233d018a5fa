// The subcommands of `poseidon`. Each takes its own arguments, without the program's and its own name, prints what is wrong
// to standard error, and returns the exit code of the process.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/types.h"

namespace poseidon::app {

constexpr int kSuccess = 0;
constexpr int kBroken = 1;      // a mistake in the program itself
constexpr int kWrongUsage = 2;  // flags that do not exist, or lack a value
constexpr int kWrongInput = 3;  // a prototxt, data base, snapshot or plan that cannot be used
constexpr int kJobFailed = 4;   // a worker died, fell silent or never came
constexpr int kSystem = 5;      // the operating system said no: disk full, port in use, no memory
constexpr int kSignalled = 128; // plus the number of the signal that asked for the end: 130 for Ctrl-C

int exit_code_of(ErrorCode code);

int train_command(const std::vector<std::string>& arguments);
int test_command(const std::vector<std::string>& arguments);
int time_command(const std::vector<std::string>& arguments);
int run_command(const std::vector<std::string>& arguments);
int replay_command(const std::vector<std::string>& arguments);
int plan_command(const std::vector<std::string>& arguments);
int agent_command(const std::vector<std::string>& arguments);
int serve_command(const std::vector<std::string>& arguments);
// Caffe's own command, as a link called `caffe` to this program: `caffe train --solver=FILE` and the like.
int caffe_command(const std::vector<std::string>& arguments);
// Where these arguments of `caffe` are a training's, those of train_command that train as Caffe does: with its log, and its signals.
std::optional<std::vector<std::string>> caffe_training(const std::vector<std::string>& arguments);
int devices_command(const std::vector<std::string>& arguments);
int features_command(const std::vector<std::string>& arguments);
int convert_model_command(const std::vector<std::string>& arguments);
int upgrade_net_command(const std::vector<std::string>& arguments);
int upgrade_solver_command(const std::vector<std::string>& arguments);

// Carried out by the program poseidon-data, which this process then becomes.
int convert_cifar_command(const std::vector<std::string>& arguments);
int convert_images_command(const std::vector<std::string>& arguments);
int convert_mnist_command(const std::vector<std::string>& arguments);
int draw_net_command(const std::vector<std::string>& arguments);
int image_mean_command(const std::vector<std::string>& arguments);
int parse_log_command(const std::vector<std::string>& arguments);
int partition_data_command(const std::vector<std::string>& arguments);
int plot_log_command(const std::vector<std::string>& arguments);

// What every subcommand does with its arguments: Caffe's old spelling is understood, `--help` and mistakes end the command
// with the exit code that is returned; nothing: go on.
std::optional<int> parse(CLI::App& app, const std::vector<std::string>& arguments, std::span<const std::string_view> switches = {});

// More than anybody runs. Without a bound CLI11 takes -5 for 2^64 - 5.
constexpr std::int64_t kIterationsMax = 1'000'000'000'000;

// Threads of a process that computes, where the user gives no number: this host's cores over the processes that share them.
int shared_threads(int processes_here);

// A file that grows over the limit of the user or the shell (ulimit -f) is an error to report then, and not the end of the process.
void outlive_file_limits();

// "float32" and "float64", for --dtype.
CLI::Option* add_dtype(CLI::App& app, std::string& dtype);
// "bf16" and "fp16", for --wire.
CLI::Option* add_wire(CLI::App& app, std::optional<DType>& wire);

// Caffe's --gpu. There is no Caffe engine for GPUs in this version: check_gpu is kInvalid where one is asked for, and says what to do,
// of which `instead` is the command's own part.
void add_gpu(CLI::App& app, std::optional<std::string>& gpu);
Status check_gpu(const std::optional<std::string>& gpu, std::string_view instead);

// --level and --stage, which the layers' include and exclude rules ask for.
void add_net_state(CLI::App& app, std::optional<std::int64_t>& level, std::vector<std::string>& stages);

// --lanes and --pin-lanes.
void add_lanes(CLI::App& app, std::size_t& lanes, bool& pin);

// --data-threads: how many threads of each reader of data decode image files. The readers are child processes, of workers too,
// so it is handed down in the environment (POSEIDON_DATA_THREADS).
CLI::Option* add_data_threads(CLI::App& app);

// "off", "on" or a number, for --per-host: plan::parse_per_host.
CLI::Option* add_per_host(CLI::App& app, std::string& per_host);

}  // namespace poseidon::app
