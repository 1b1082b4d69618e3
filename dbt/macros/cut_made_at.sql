{#- When the cut was asked for: every change committed before is in this build. `warehouse/build.py` writes it. -#}
{% macro cut_made_at() -%}
(select made_at from meta.build)
{%- endmacro %}
