"""Does a filter still see what was made smaller, darker or covered?"""
