#include "forward/worker.h"
