#include "tap/door.h"
