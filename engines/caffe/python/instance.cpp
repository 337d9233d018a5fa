#include "engines/caffe/python/instance.h"

#include <c10/core/GradMode.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/python/blob.h"

namespace py = pybind11;

namespace poseidon::caffe::python {
namespace {

using Blobs = std::vector<std::shared_ptr<Blob>>;

// Runs `action` with the interpreter's lock, and without recording a graph: what a class computes autograd is told by
// its backward. An exception becomes a sentence with the last line of the user's that it has passed. Those that are no
// errors (KeyboardInterrupt, SystemExit) go on as they are.
template <typename Action>
auto in_python(const Action& action) -> decltype(action()) {
  const py::gil_scoped_acquire lock;
  const c10::NoGradGuard no_graph;
  try {
    return action();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    const py::object describe = py::module_::import("poseidon.caffe._layer").attr("describe");
    throw PythonComplaint(py::cast<std::string>(describe(error.value(), error.trace())));
  } catch (const ConfigError& error) {  // of a blob that cannot take a shape
    throw PythonComplaint(error.what());
  }
}

class Instance final : public PythonInstance {
 public:
  explicit Instance(const PythonClass& which) : dtype_(which.dtype) {
    in_python([&] {
      const py::object make = py::module_::import("poseidon.caffe._layer").attr("make");
      object_ = make(which.module, which.name, which.folder, which.param_str, which.layer,
                     static_cast<int>(which.phase), which.dtype == at::kDouble ? "float64" : "float32");
    });
  }
  ~Instance() override {
    const py::gil_scoped_acquire lock;
    object_ = py::object();
  }

  std::vector<Shape> reshape(const std::vector<Shape>& bottoms, std::size_t tops) override {
    return in_python([&] {
      if (!std::exchange(is_set_up_, true)) {
        for (const Shape& shape : bottoms) bottoms_.push_back(std::make_shared<Blob>(shape, dtype_));
        // Caffe's tops have no axes before the class gives them some.
        for (std::size_t i = 0; i < tops; ++i) tops_.push_back(std::make_shared<Blob>(Shape{0}, dtype_));
        object_.attr("setup")(bottoms_, tops_);
      }
      for (std::size_t i = 0; i < bottoms.size(); ++i) bottoms_[i]->reshape(bottoms[i]);
      object_.attr("reshape")(bottoms_, tops_);
      std::vector<Shape> shapes;
      for (const auto& top : tops_) shapes.push_back(top->shape());
      return shapes;
    });
  }

  std::vector<at::Tensor> arrays() override {
    return in_python([&] {
      std::vector<at::Tensor> arrays;
      for (const Blob* const blob : own_blobs()) arrays.push_back(blob->data());
      return arrays;
    });
  }

  std::vector<at::Tensor> forward(const PythonPass& pass, const std::vector<at::Tensor>& bottoms,
                                  const std::vector<at::Tensor>& arrays) override {
    return in_python([&] {
      for (std::size_t i = 0; i < bottoms.size(); ++i) bottoms_[i]->show(bottoms[i]);
      const std::vector<Blob*> own = own_blobs();
      for (std::size_t i = 0; i < arrays.size(); ++i) own[i]->show(arrays[i]);
      object_.attr("iteration") = pass.iteration;
      object_.attr("first_record") = pass.first_record;
      object_.attr("records") = pass.records;
      // As Caffe, before each pass: a class may take its shapes from what it has read.
      object_.attr("reshape")(bottoms_, tops_);
      object_.attr("forward")(bottoms_, tops_);
      std::vector<at::Tensor> made;
      for (const auto& top : tops_) made.push_back(top->data().clone());
      return made;
    });
  }

  std::vector<at::Tensor> backward(const std::vector<at::Tensor>& top_gradients,
                                   const std::vector<bool>& wanted) override {
    return in_python([&] {
      for (std::size_t i = 0; i < tops_.size(); ++i) {
        if (top_gradients[i].defined()) {
          tops_[i]->assign_diff(top_gradients[i].contiguous());
        } else {
          tops_[i]->diff().zero_();
        }
      }
      for (const auto& bottom : bottoms_) bottom->diff().zero_();
      const std::vector<Blob*> own = own_blobs();
      for (Blob* const blob : own) blob->diff().zero_();
      object_.attr("backward")(tops_, wanted, bottoms_);
      std::vector<at::Tensor> gradients(bottoms_.size());
      for (std::size_t i = 0; i < bottoms_.size(); ++i) {
        if (wanted[i]) gradients[i] = bottoms_[i]->diff().clone();
      }
      for (Blob* const blob : own) gradients.push_back(blob->diff().clone());
      return gradients;
    });
  }

 private:
  std::vector<Blob*> own_blobs() const { return py::cast<std::vector<Blob*>>(object_.attr("blobs")); }

  at::ScalarType dtype_;
  bool is_set_up_ = false;
  py::object object_;
  Blobs bottoms_;
  Blobs tops_;
};

class Classes final : public PythonClasses {
 public:
  std::unique_ptr<PythonInstance> make(const PythonClass& which) override { return std::make_unique<Instance>(which); }
};

}  // namespace

PythonClasses& classes() {
  static Classes all;
  return all;
}

}  // namespace poseidon::caffe::python
