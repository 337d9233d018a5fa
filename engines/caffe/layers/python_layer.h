// Layers of type Python: their arithmetic is a class that the user has written in Python.
//
// The layers know no interpreter. They talk to one through the two interfaces here, whose implementation lies in the
// Python module of pycaffe (engines/caffe/python). Within Python that module hands its own in (`make_python_by`); a
// program without Python loads module and interpreter when the first such layer is made (`make_python`), so it needs
// neither where no net has one. Only types of the standard library and of libtorch go through, which program and
// module have once in common.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engines/caffe/layers/layer.h"

namespace poseidon::caffe {

// Which class, and what its instance is told before its `setup`.
struct PythonClass {
  std::string module;
  std::string name;
  std::string folder;  // of the prototxt: searched for the module before all others
  std::string param_str;
  std::string layer;  // the layer's name
  Phase phase = Phase::kTrain;
  at::ScalarType dtype = at::kFloat;
};

// What an instance is told of a forward pass, as ForwardContext has it.
struct PythonPass {
  Iteration iteration = 0;
  std::uint64_t first_record = 0;
  std::uint64_t records = 1;
};

// What Python says of a class that cannot be used or has raised an exception, with its file and line. The layer's name
// and place are put in front of it.
class PythonComplaint : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One instance of such a class. It keeps what the last forward pass took and made, for `backward`. All functions throw
// PythonComplaint.
class PythonInstance {
 public:
  virtual ~PythonInstance() = default;
  PythonInstance() = default;
  PythonInstance(const PythonInstance&) = delete;
  PythonInstance& operator=(const PythonInstance&) = delete;

  // The tops' shapes: `setup` the first time, then `reshape`.
  virtual std::vector<Shape> reshape(const std::vector<Shape>& bottoms, std::size_t tops) = 0;
  // What `setup` has added to `self.blobs`, with its first values.
  virtual std::vector<at::Tensor> arrays() = 0;
  // `arrays` are those that the net trains; the instance sees their memory.
  virtual std::vector<at::Tensor> forward(const PythonPass& pass, const std::vector<at::Tensor>& bottoms,
                                          const std::vector<at::Tensor>& arrays) = 0;
  // The gradients of the bottoms, undefined where `wanted` says no, and then of all arrays.
  virtual std::vector<at::Tensor> backward(const std::vector<at::Tensor>& top_gradients,
                                           const std::vector<bool>& wanted) = 0;
};

class PythonClasses {
 public:
  virtual ~PythonClasses() = default;
  virtual std::unique_ptr<PythonInstance> make(const PythonClass& which) = 0;
};

// The name under which the module has a function of this type. `interpreter` is the path of the Python program whose
// packages are to be used; it is ignored within Python. The result lives as long as the process.
inline constexpr const char* kPythonClassesSymbol = "poseidon_python_classes";
using PythonClassesFunction = PythonClasses* (*)(const char* interpreter);

// Finds interpreter, libpython and module, and loads them, once in a process. Throws PythonComplaint.
PythonClasses& loaded_python_classes();

std::unique_ptr<Layer> make_python_by(PythonClasses& classes, const LayerConfig& config);

}  // namespace poseidon::caffe
