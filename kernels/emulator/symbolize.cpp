// Turns code addresses into source lines, by binutils' addr2line where it is installed.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "worker.h"

namespace emulator {
namespace {

std::string tidy(const std::string& line) {
    const size_t note = line.find(" (discriminator");
    return line.substr(0, note);
}

bool of_the_emulator(const std::string& line) {
    return line.find("/emulator/") != std::string::npos || line[0] == '?';
}

}  // namespace

std::string source_line(uintptr_t address) {
    Dl_info module{};
    if (!dladdr(reinterpret_cast<void*>(address), &module) || !module.dli_fname) return "?";
    const uintptr_t offset = address - reinterpret_cast<uintptr_t>(module.dli_fbase);
    char text[1024];
    const bool program = strchr(module.dli_fname, '/') == nullptr;
    snprintf(text, sizeof text, "addr2line -i -e '%s' 0x%zx 2>/dev/null", program ? "/proc/self/exe" : module.dli_fname,
             size_t(offset));
    std::string found;
    if (FILE* pipe = popen(text, "r")) {
        while (fgets(text, sizeof text, pipe)) {
            std::string line(text, strcspn(text, "\n"));
            if (line.empty() || of_the_emulator(line)) continue;
            if (!found.empty()) {
                found += ", called at " + tidy(line);
                break;
            }
            found = tidy(line);
        }
        pclose(pipe);
    }
    if (!found.empty()) return found;
    snprintf(text, sizeof text, "%s+0x%zx", module.dli_fname, size_t(offset));
    return text;
}

}  // namespace emulator
