#include "driver/xsk.h"
