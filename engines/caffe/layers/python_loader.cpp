// Python in a program that is not Python's: libpython and the module of pycaffe, loaded when they are wanted.
//
// The environment's own interpreter is asked where its library lies, so that the two are of one kind. The library comes
// first and with all its symbols, as the module and NumPy expect to find them.
#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/text.h"
#include "engines/caffe/layers/python_layer.h"

namespace poseidon::caffe {
namespace {

namespace fs = std::filesystem;

struct Interpreter {
  std::string path;
  std::string suffix;   // of the modules that it loads: ".cpython-311-x86_64-linux-gnu.so"
  std::string library;  // empty where it has none to share
};

fs::path program_folder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

// That of the active environment, else of the one that the program is installed in, else what it was built with.
std::string interpreter_path() {
  std::vector<fs::path> candidates;
  if (const char* const active = std::getenv("VIRTUAL_ENV"); active != nullptr && *active != '\0') {
    candidates.push_back(fs::path(active) / "bin/python");
  }
  if (fs::exists(program_folder().parent_path() / "pyvenv.cfg")) candidates.push_back(program_folder() / "python");
  candidates.emplace_back(POSEIDON_PYTHON);
  for (const fs::path& candidate : candidates) {
    if (fs::exists(candidate)) return candidate.string();
  }
  return "python3";
}

std::string shell_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// What the command prints; nothing where it fails.
std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "re"), ::pclose);
  std::string text;
  std::array<char, 4096> part{};
  while (pipe != nullptr && std::fgets(part.data(), part.size(), pipe.get()) != nullptr) text += part.data();
  return text;
}

Interpreter found_interpreter() {
  constexpr const char* kQuestion =
      "import os, sys, sysconfig as s; n = s.get_config_var('INSTSONAME') or ''; "
      "c = [os.path.join(d, n) for d in (s.get_config_var('LIBDIR') or '', sys.base_prefix + '/lib') if '.so' in n]; "
      "print(s.get_config_var('EXT_SUFFIX')); print(next((p for p in c if os.path.exists(p)), ''))";
  Interpreter found{.path = interpreter_path(), .suffix = {}, .library = {}};
  const std::string facts = output_of(base::concat(shell_quoted(found.path), " -c ", shell_quoted(kQuestion)));
  const std::size_t line = facts.find('\n');
  if (line == std::string::npos) throw PythonComplaint(base::concat(found.path, " does not run"));
  found.suffix = facts.substr(0, line);
  found.library = facts.substr(line + 1, facts.find('\n', line + 1) - line - 1);
  return found;
}

// In the build folder beside the program's folder; installed, in the environment's packages.
fs::path module_path(const Interpreter& interpreter) {
  const fs::path bin = program_folder();
  std::string searched;
  for (const fs::path& root : {bin.parent_path() / "python", (bin / POSEIDON_PYTHON_FROM_BIN).lexically_normal()}) {
    fs::path module = root / "poseidon/caffe" / base::concat("_engine", interpreter.suffix);
    if (fs::exists(module)) return module;
    searched += base::concat(searched.empty() ? "" : " and ", module.string());
  }
  throw PythonComplaint(base::concat("there is no module of Poseidon for ", interpreter.path, " (looked for ", searched,
                                     "); build it (target poseidon_caffe_python), or activate the environment that it "
                                     "was built for"));
}

void* opened(const std::string& library, int flags) {
  void* const handle = ::dlopen(library.c_str(), flags);
  if (handle == nullptr) throw PythonComplaint(::dlerror());
  return handle;
}

PythonClasses& load() {
  const Interpreter interpreter = found_interpreter();
  const fs::path module = module_path(interpreter);
  if (interpreter.library.empty()) {
    throw PythonComplaint(base::concat(interpreter.path,
                                       " has no shared libpython (Debian: the package libpython3.11 or of another "
                                       "version; Python itself: configure --enable-shared)"));
  }
  opened(interpreter.library, RTLD_NOW | RTLD_GLOBAL);
  void* const symbol = ::dlsym(opened(module.string(), RTLD_NOW | RTLD_LOCAL), kPythonClassesSymbol);
  if (symbol == nullptr) throw PythonComplaint(base::concat(module.string(), " is of another version of Poseidon"));
  return *reinterpret_cast<PythonClassesFunction>(symbol)(interpreter.path.c_str());
}

}  // namespace

PythonClasses& loaded_python_classes() {
  static PythonClasses& classes = load();
  return classes;
}

}  // namespace poseidon::caffe
