"""What a part of a caption may be made of: words for clothes, place, light and expression, and none besides.

A list of what must not be said would never end: a name in lower case, a comparison or a body can be put in any words.
So the words that may be said are listed, and how they may stand together: an adjective needs a thing of its kind after
it ("a pale wall", never "pale"), because alone it would be the person's.
"""

import re

_CLOTHES = """
anorak apron backpack badge bag bandana bangle barrette bathrobe beanie belt beret bikini blazer blouse bodice bodysuit
bomber bonnet boot bow bow-tie bowtie bra bracelet brim brooch buckle button camisole cap cape capris cardigan chain
chinos choker clothes clothing coat collar corset costume coverall crewneck cuff cufflinks culottes dress dungarees
earbud earmuff earring emblem espadrilles fedora fleece flip-flops frill fur gear gilet glasses glove goggles gown
handbag handkerchief harness hat headband headphones headscarf headset headwear helmet hem henley hijab hood hoodie
jacket jeans jersey jewellery jewelry jumper jumpsuit kerchief kilt kimono knitwear lace lanyard lapel lapels leggings
leotard lining loafers logo mask mitten moccasins neckerchief necklace neckline necklines necktie nightgown onesie
outfit overalls overcoat overshirt pajamas pants parka patch pattern peacoat pearls pendant pin pinafore piping pocket
polo poncho print pullover purse pyjamas raincoat ribbon ring robe romper rucksack ruffle sandals sari sash satchel
scarf scrubs seam shawl shirt shoe shorts singlet skirt sleeve slippers smartwatch smock sneakers sock spectacles
stocking strap stripe suit sundress sunglasses sunhat suspenders sweatband sweater sweatpants sweatshirt swimsuit
swimwear t-shirt tassel tee tie tights toga top topcoat tracksuit trench trim trousers trunks tshirt turban turtleneck
tutu tuxedo undershirt underwear uniform v-neck veil vest visor waistband waistcoat wardrobe watch wellingtons wetsuit
windbreaker windcheater wristband wristwatch zip zipper
"""
_PLACE = """
aircraft airfield airport aisle alley angle apartment aquarium arcade arch architecture area arena armchair atrium attic
auditorium avenue awning backdrop background backyard bakery balcony ballroom bar barn barrier basement basketball
bathroom bay bazaar beach beachfront bed bedroom belt bench bicycle bike billboard blackboard blanket bleachers blind
blinds board boardwalk boat book bookcase bookshelf bookshelves bookshop bookstall booth bottle boulder boutique bowl
box branch bread brick bridge brush building bus bushes cabin cabinet cable cafe cafeteria café cake camera campfire
campus canal car carpet castle cave ceiling cellar ceremony chair chairlift chandelier chart cinema city classroom
clearing cliffs clinic clock closet clouds club coast cobblestones coffee column computer concert concrete conservatory
construction container corner corridor cottage couch counter countertop countryside course court courtyard crosswalk
cubicle cup cupboard curtain cushion dam deck decor decoration den desert desk diner display distance dock door
doorframe doorway dorm downtown driveway dune easel edge elevator embankment entrance equipment escalator estuary
excavator exterior fabric facade factory fan farm farmland fence ferns ferry festival field fireplace flag floor flower
foliage food football footbridge footpath forecourt foreground forest fountain foyer frame fruit furniture gallery
gangway garage garden gate gazebo glacier glass golf graffiti grandstand grass grassland greenery greenhouse grill grove
guesthouse guitar gym hall hallway hangar harbor harbour headboard headlights hedge hedgerow helicopter highway hill
hillside hospital hotel house hut iceberg igloo inn interior intersection island jetty jungle kayak kettle keyboard
kiosk kitchen lab laboratory ladder lagoon lake lamppost landing landscape laptop laundromat lawn leaf leaves lecture
letters library lift lighthouse lobby locker loft lot lounge machine mall mansion map marina market marketplace mat
meadow mezzanine microphone mill mirror monitor motel motorcycle motorway mountain mountaintop mug mural museum nature
newspaper nightclub notebook oasis observatory ocean office orchard oven paddle paddock paint painting palm panel paper
park parking party passage passageway passenger pastries pastry pasture path pathway patio pavement pavilion pen pergola
phone piano pier pillar pillow pine plain plane plant planter plate plateau platform playground playing playroom plaza
podium pole pond pool poolside porch poster pot pottery projector promenade puddle quarry quay rack racket railing
railway rainforest ramp ranch rapids reception reef reservoir restaurant restroom ridge rink river riverbank road rocks
roof rooftop room rope rug ruins sails salon sand savanna scene scenery school screen sea seashore seaside seat shack
shed sheets shelf shelter shelves ship shop shore shoreline shower shrubs side sidewalk sign sill sink site skateboard
skylight skyline slide slope smartphone snowbank sofa square stable stadium stage staircase stairs stairwell stall stand
station steps stool stop store storefront stove stream street studio study suburb subway supermarket surf surface
surfboard surroundings swamp swimming swing table tablet tarmac tavern taxi tea tent terminal terrace textbook theater
theatre tile tools tower town townhouse track tractor traffic trail trailer train tram tree tripod truck trunk tunnel
turf umbrella underground underpass valley van vase vegetables vegetation vehicle veranda vestibule view village
vineyard wagon walkway wall wallpaper warehouse water waterfall waterfront wave wharf wheel whiteboard wilderness wind
window windowsill wine winery wires woodland woods work workbench workplace workshop workspace worktop yacht yard zoo
"""
_LIGHT = """
afternoon backlight backlighting backlights beams blaze bokeh bulb bulbs candle candlelight cloud contrast day daylight
daytime drizzle dusk evening firelight fixtures flash floodlights fog glare gleam glimmer gloom glow haze headlights
highlight hour illumination lamp lamplight lantern lens light lightbulb lighting lightning midday mist moonlight morning
neon night nighttime noon overcast projector radiance rain raindrop rainfall rays reflection shade shadow silhouette
skies sky skylight snow snowfall snowflake spotlight spotlights starlight storm streetlamp streetlight streetlights sun
sunbeam sunlight sunray sunrise sunset sunshine tone torch torchlight twilight weather
"""
_EXPRESSION = """
absorbed afraid ahead alert amazed amused amusement angry annoyed anxious applause apprehensive aside astonished
attentive away awe beaming bemused blank bored calm calmness chanting cheer cheerful cheering chuckle chuckling composed
concentrated concentrating concentration concern concerned confidence confident confused contemplative content contented
contentment crying curiosity curious dazed deadpan delight delighted determination determined disappointed disgust
disgusted distracted doubtful dreamy drowsy ecstatic elated embarrassed embarrassment emotional emotionless energetic
enthusiasm enthusiastic excited excitement exhausted expectant explaining expression expressionless fear fearful focus
focused friendly frown frowning frustrated gasp gasping gaze giggle giggling glance glancing glaring glee gleeful gloomy
glum grimace grimacing grin grinning happiness happy hesitant hint hope hopeful impassive impatient inquisitive
intensity intent interested introspective irritated joy joyful joyous laugh laughing laughter listening lively longing
look meditative melancholic melancholy mirth mischievous mood moody nervous neutral nodding optimistic outgoing peaceful
pensive perplexed playful pleasant pleased polite pondering pose posture pout pouting pride proud puzzled quizzical
relaxed relief relieved reserved resolute restless sad sadness satisfied scared sceptical scowl scowling serene serenity
serious seriousness sheepish shocked shouting shy sigh sighing singing skeptical sleepy smile smiling smirk smirking
sneering sober solemn speaking squinting stare staring startled stern stoic sullen surprise surprised suspicious talking
tender tenderness tense thinking thoughtful tired unamused uncertain unimpressed unsmiling unsure upbeat upset vacant
warmth wary weary whispering whistling wink winking wistful wonder worried yawn yawning yelling
"""
# Of a face that shows something, these may stand as the whole part, and so may these words for a place or a light.
_ALONE = """
afternoon backlight backlit candlelight candlelit cloudy daylight daytime dusk evening firelight floodlights foggy
indoors inside lamplight moonlight moonlit morning night nighttime outdoors outside overcast rainy snowy spotlight
starlight streetlight sunlight sunlit sunny sunrise sunset sunshine torchlight twilight
"""
_COLOURS = """
amber apricot aqua aquamarine azure beige black blue bronze brown burgundy camel camouflage cashmere champagne charcoal
chiffon chocolate cobalt copper coral corduroy cotton cranberry cream crimson cyan denim eggshell emerald flannel fleece
fuchsia gold golden gray green grey indigo ivory khaki lace lavender leather lemon lilac lime linen magenta maroon mauve
mint mustard navy ochre olive orange peach petrol pewter pink plaid plum purple raspberry red royal rust salmon sand
sapphire satin scarlet silk silver slate suede tan tangerine tartan taupe teal terracotta tulle turquoise tweed velvet
violet white wool yellow
"""
_SHADES = "light dark pale bright deep faded muted pastel soft rich vivid vibrant neon all dusty"
_CUT = """
athletic autumn baby-blue backless backwards baggy baseball basketball beaded big bomber bow brimmed bucket business
button button-down button-up buttoned buttoned-up cable camel canvas cargo casual checked checkerboard checkered
chequered chunky closed collared collarless colored colorful coloured colourful cosy cowboy cowl cozy crew crisp
crocheted crop cropped cycling denim distressed dot dotted double double-breasted dress embroidered evening faux felt
festive fitted flat floral flowered football formal frayed frilly fringed funnel fur furry glittering glittery glossy
golf graphic gym halter heather heavy high-necked hiking hooded hoop hooped hospital informal knit knitted lab laced
large layered life lightweight lined little long long-sleeved loose matching matte metallic military-green mock modern
monochrome multicolored multicoloured notch nylon off-shoulder off-white open oversized padded paisley patterned pearl
pillbox pinstripe pinstriped plain pleated polka powder-blue printed puffed puffer puffy quilted raglan rain rain-soaked
reflective retro ribbed ripped roll round rubber ruffled running safety school sequin sequined sequinned sheer shiny
short short-sleeved simple single-breasted ski skinny-fit sky-blue sleeved sleeveless small soaked soccer solid
spaghetti sparkly sport sports sporty spotted spring strapless straw stretchy striped stud suit summer surfing surgical
swimming tailored tank tasselled tennis thick thin three-piece tie-dye tie-dyed tiny traditional transparent trimmed
tweedy two-piece unbuttoned unzipped v-necked varsity velvety vintage warm washed waterproof wedding wide wide-brimmed
winter wool-blend woolen woollen woolly work worn woven wrap yoga zip-up zipped zipped-up
"""
_SETTING = """
alpine arched autumn autumnal bare bare-walled baseball basketball big blank blooming blurred blurry book-lined bookish
brick bright brightly-lit broad bus busy calm checked checkered chequered choppy clean closed cloudy cluttered coastal
cobbled cobblestone colored colorful coloured colourful commercial concert concrete conference construction contemporary
cosy cozy crisp crowded cushioned dance dark decorated deep dense dim dining distant dry dusty empty evening fairy
fallen fitness flooded floor-to-ceiling floral flowering foggy football frosted frozen furnished gentle glass
glass-walled glittering glowing golf grand grassy gravel green hazy high hilly historic hospital hotel icy indoor
industrial iron large leafy light little living long low lush makeshift marble meeting messy metal metallic minimal
minimalist misty modern mossy mountainous moving muddy narrow neat neon night open orderly ornate out-of-focus outdoor
overgrown painted paneled panelled parked parking passing patterned paved peaceful plain plastic potted private public
quiet railway rainy residential rippling rocky rolling rough rural rustic sandy school shaded shadowy shady shallow
shopping simple ski sleek small snow-capped snow-covered snowy soccer soft spacious sparse spring springlike stained
stainless steel still stone stormy striped suburban subway summer summery sun-dappled sun-drenched sunlit sunny swimming
tall tennis textured tidy tiled tiny train tree-lined tropical turned turquoise unfocused university unlit upholstered
urban vast waiting well-lit wet whitewashed wide wind-swept windblown windowless windy winter wintry wood wooden
"""
_LIT = """
afternoon ambient artificial autumn backlit balanced bluish blurred blurry bright candle ceiling clear cloudy cold
colored colorful coloured colourful cool cosy cozy crisp dappled dark deep desk diffuse diffused dim direct distant
dramatic early even evening fading faint fairy filtered flat flickering fluorescent foggy gentle glittering glittery
glowing golden golden-hour greenish hard harsh hazy heavy high hospital incandescent indirect indoor intense kitchen
late light long low midday misty moody morning muffled muted natural neon orangey outdoor overcast overhead pale pendant
pinkish rainy reddish reflected scattered shimmering side sidelong slanting snowy soft sparkling spring stage stark
starry stormy street strong studio subtle summer sun-dappled sunny twinkling uniform warm window winter wintry yellowish
"""
_FELT = """
beaming big blank bright broad calm cheeky cheerful closed closed-mouth concentrated confident content contented cool
cosy crooked curious deep determined direct distant downward dramatic easy faint faraway focused gentle genuine half
happy hopeful intense intent light little lively lopsided mild natural neutral open open-mouthed peaceful pensive
playful pleasant polite quiet quite quizzical radiant rather relaxed serious shy sideways sincere slight sly small soft
somewhat steady subtle tender thoughtful tight tight-lipped tired upward very warm weary wide wry
"""
_JOINING = """
a above across against all along amid among an and angrily anxiously approaching are around at back bathed before behind
below beneath beside besides between beyond boldly both brightly broadly by calmly carrying casting cheerfully clad
closing coming confidently contentedly cooking covered crossing crouching curiously dancing dimly directly down downward
downwards draped dressed drifting drinking driving during each eating entering evenly excitedly explaining facing
faintly falling featuring few filled filtering flickering forward framed from front gazing gently glancing glittering
glowing hanging happily has her him his holding holds illuminated in inside intently into is its itself joyfully jumping
kneeling layered leaning leans leaving left lightly lined lit looking looks lying many mildly near nervously next of off
on one onto open opening openly opposite or out outside over overhead overlooking paired partially partly past
peacefully playing pointing politely posed posing proudly pulled quietly reading reflected resting riding right rising
rolled running sadly seated seen seriously set setting several shining showing shyly sits sitting sleepily slightly
smiling softly some something standing stands staring steadily straight streaming surrounded talking the their them this
thoughtfully three through tied tightly tilted to top touching toward towards tucked turned two under underneath up
upward upwards using very visible walking warmly waving wearily wearing wears while widely with without working worn
wrapped writing
"""
_OF_THE_TEMPLATE = "head and shoulders"


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Kind → its things, and the adjectives that may stand before them.
_THINGS = {"clothes": _set(_CLOTHES), "place": _set(_PLACE), "light": _set(_LIGHT), "expression": _set(_EXPRESSION)}
_COLOUR, _SHADE = _set(_COLOURS), _set(_SHADES)
_BEFORE = {
    "clothes": _set(_CUT) | _COLOUR | _SHADE,
    "place": _set(_SETTING) | _COLOUR | _SHADE,
    "light": _set(_LIT) | _COLOUR | _SHADE,
    "expression": _set(_FELT),
}
_ADJECTIVES = frozenset().union(*_BEFORE.values())
_JOINS = _set(_JOINING)
_DETERMINERS = _set("a an the its her his their")
_BETWEEN = _set("and or slightly softly gently brightly dimly")
"""Between an adjective and its thing."""
_WEARING = _set("in wearing wears")
"""After these a colour or a cloth is what somebody wears: "in white", "dressed in all black"."""
# The rest are names, or say nothing by themselves.
_MAY_STAND_ALONE = _set(_ALONE) | _THINGS["expression"] - _set(
    "expression hint hope intensity joy look mood pose posture pride serenity warmth wonder"
)

VOCABULARY = " ".join(sorted({*_JOINS, *_MAY_STAND_ALONE, *_ADJECTIVES, *frozenset().union(*_THINGS.values())}))
"""Every word that may be said; what was taken by another list is asked for again."""


def fault(clause: str, class_word: str) -> str:
    """Why a part of a caption is not made of words for clothes, place, light and expression; empty if it is.

    Args:
        clause: what stands between two commas.
        class_word: what the person is called; "the woman is smiling" is taken.
    """
    text = clause.lower()
    if text == _OF_THE_TEMPLATE:
        return ""
    about = re.match(rf"(?:the {re.escape(class_word)}|she|he|they) (?:is|are|looks?|seems?|wears?) ", text)
    words = _words(text[about.end() :] if about else text)
    for word in words:
        if not (word in _JOINS or word in _ADJECTIVES or word in _MAY_STAND_ALONE or _kinds(word)):
            return f"'{word}' is not known as a word for clothes, place, light or expression"
    if len(words) == 1:
        return "" if words[0] in _MAY_STAND_ALONE else f"'{words[0]}' alone may be said of the person"
    if about and not (words[0] in _JOINS - _DETERMINERS or "expression" in _kinds(words[0])):
        return f"'{words[0]}' is said of the person"
    return _standing(words)


def _words(text: str) -> list[str]:
    """The words in lower case; of those with a hyphen that are not known as such, the parts."""
    known = frozenset().union(*_THINGS.values(), _ADJECTIVES, _JOINS)
    found: list[str] = []
    for word in text.split():
        found += [word] if word in known else re.split(r"[-']", word)
    return found


def _kinds(word: str) -> set[str]:
    """The kinds of thing that a word names, as it is or as a plural."""
    forms = [word, *(word.removesuffix(end) + one for end, one in (("s", ""), ("es", "")) if word.endswith(end))]
    return {kind for kind, things in _THINGS.items() if any(form in things for form in forms)}


def _standing(words: list[str]) -> str:
    """Why these words cannot stand together; empty if every adjective has a thing of its kind, and there is one."""
    waiting: list[str] = []  # adjectives whose thing has not come
    opened = ""  # what came before them
    things = 0
    for word, following in zip(words, [*words[1:], ""], strict=True):
        kinds = _kinds(word)
        if any(_BEFORE[kind].issuperset(waiting) for kind in kinds):
            waiting, things = [], things + 1
        elif word in _ADJECTIVES and not (word in _JOINS and following in ("", *_JOINS)):
            waiting.append(word)
        # "Warm chandelier light": the last of several things is the one.
        elif word not in _BETWEEN and not (kinds and _kinds(following)):
            if waiting and not _worn(waiting, opened):
                break
            waiting, things, opened = [], things + bool(kinds or waiting), word
    if waiting and not _worn(waiting, opened):
        return f"'{' '.join(waiting)}' may be said of the person"
    return "" if things or waiting else "it names no clothes, place, light or expression"


def _worn(adjectives: list[str], opened: str) -> bool:
    """Whether these are colours that somebody is dressed in."""
    return opened in _WEARING and adjectives[-1] in _COLOUR and set(adjectives) <= _COLOUR | _SHADE
